"""Answers over HTTP equal those of the pipeline, complete and streamed."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from ragweave import RagPipeline
from ragweave.serving.settings import Limits, ServingSettings
from tests.support.serving import served

QUESTIONS = ["Where is Lima?", "What is the capital of Kenya?", "Is Chile long?"]


def events_of(response: httpx.Response) -> list[tuple[str, Any]]:
    """The names and the data of server-sent events."""
    events = []
    for block in response.text.split("\n\n"):
        if block:
            name, data = block.split("\n")
            events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def assert_same(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare answers that may have been computed in different batches."""
    assert answer["question"] == expected["question"]
    assert answer["answer"] == expected["answer"]
    assert answer["score"] == pytest.approx(expected["score"], abs=1e-4)
    ids = [passage["id"] for passage in answer["passages"]]
    assert ids == [passage["id"] for passage in expected["passages"]]
    for token, other in zip(answer["tokens"], expected["tokens"], strict=True):
        assert token["text"] == other["text"]
        assert token["posteriors"] == pytest.approx(other["posteriors"], abs=1e-4)
        assert token["support"] == other["support"]


def test_one_question(client: httpx.Client, pipeline: RagPipeline):
    response = client.post("/v1/answers", json={"question": QUESTIONS[0], "max_new_tokens": 6})
    assert response.status_code == 200
    (answer,) = response.json()["answers"]
    assert_same(answer, pipeline(QUESTIONS[0], max_new_tokens=6).to_dict())


@pytest.mark.parametrize("formulation", ["token", "sequence"])
def test_several_questions_and_all_options(client: httpx.Client, pipeline: RagPipeline, formulation: str):
    options = {"n_docs": 3, "num_beams": 2, "max_new_tokens": 5}
    body = {"questions": QUESTIONS, "formulation": formulation, **options}
    answers = client.post("/v1/answers", json=body).json()["answers"]
    expected = pipeline.with_formulation(formulation)(QUESTIONS, **options)
    for answer, other in zip(answers, expected, strict=True):
        assert_same(answer, other.to_dict())


def test_sources_have_no_folders(client: httpx.Client):
    (answer,) = client.post("/v1/answers", json={"question": QUESTIONS[0]}).json()["answers"]
    assert {passage["source"] for passage in answer["passages"]} <= {"peru.txt", "kenya.txt", "chile.txt"}


def test_stream_of_tokens(client: httpx.Client, pipeline: RagPipeline):
    body = {"question": QUESTIONS[0], "max_new_tokens": 12, "stream": True}
    response = client.post("/v1/answers", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response)
    names = [name for name, _ in events]
    assert names[0] == "passages"
    assert names[-1] == "answer"
    assert names.count("token") > 3
    answer = events[-1][1]
    assert_same(answer, pipeline(QUESTIONS[0], max_new_tokens=12).to_dict())
    assert "".join(data["text"] for name, data in events if name == "token") == answer["answer"]
    priors = {passage["id"]: passage["prior"] for passage in events[0][1]["passages"]}
    assert priors == {passage["id"]: passage["prior"] for passage in answer["passages"]}


def test_rag_sequence_streams_its_answer_at_the_end(client: httpx.Client):
    body = {"question": QUESTIONS[0], "max_new_tokens": 12, "stream": True, "formulation": "sequence"}
    names = [name for name, _ in events_of(client.post("/v1/answers", json=body))]
    assert names == ["passages", "token", "answer"]


def test_retrieve(client: httpx.Client, pipeline: RagPipeline):
    results = client.post("/v1/retrieve", json={"questions": QUESTIONS, "n_docs": 2}).json()["results"]
    expected = pipeline.retrieve(QUESTIONS, n_docs=2).ranked_passages()
    for result, passages in zip(results, expected, strict=True):
        assert [passage["id"] for passage in result["passages"]] == [passage.id for passage in passages]
        assert sum(passage["prior"] for passage in result["passages"]) == pytest.approx(1, abs=1e-5)
    assert [result["question"] for result in results] == QUESTIONS


def test_retrieve_as_agents_do(client: httpx.Client, pipeline: RagPipeline):
    body = {"queries": QUESTIONS, "topk": 2, "return_scores": True, "temperature": 0}
    expected = pipeline.retrieve(QUESTIONS, n_docs=2).ranked_passages()
    scored = client.post("/v1/retrieve", json=body).json()["result"]
    for hits, passages in zip(scored, expected, strict=True):
        for hit, passage in zip(hits, passages, strict=True):
            title, _, text = hit["document"]["contents"].partition("\n")
            assert (title, text, hit["document"]["id"]) == (passage.title, passage.text, passage.id)
            assert hit["score"] == pytest.approx(passage.doc_score, rel=1e-5)
    plain = client.post("/v1/retrieve", json={**body, "return_scores": False}).json()["result"]
    assert plain == [[hit["document"] for hit in hits] for hits in scored]
    for wrong, words in (
        ({"topk": 0}, "topk"),
        ({"topk": 21}, "limit n_docs"),
        ({"queries": [" "]}, "empty"),
    ):
        response = client.post("/v1/retrieve", json={**body, **wrong})
        assert response.status_code == 422 and words in response.json()["error"]["message"]


def test_requests_narrowed_by_metadata(client: httpx.Client):
    where = "document_id == 'kenya.txt' and type == 'txt'"
    retrieved = client.post("/v1/retrieve", json={"question": QUESTIONS[0], "where": where}).json()
    assert [one["id"] for one in retrieved["results"][0]["passages"]] == ["kenya.txt#0"]
    assert retrieved["results"][0]["passages"][0]["metadata"]["type"] == "txt"
    body = {"question": QUESTIONS[0], "max_new_tokens": 2, "where": where}
    (answer,) = client.post("/v1/answers", json=body).json()["answers"]
    assert [one["id"] for one in answer["passages"]] == ["kenya.txt#0"]
    agent = {"queries": QUESTIONS[:1], "where": "document_id == 'peru.txt'"}
    assert client.post("/v1/retrieve", json=agent).json()["result"][0][0]["id"] == "peru.txt#0"
    nothing = client.post("/v1/answers", json={**body, "where": "line > 99"}).json()["answers"][0]
    assert nothing["passages"] == []
    for wrong, words in (("year ==", "is invalid"), ("year == 1", "No passage has the column year")):
        for endpoint in ("/v1/answers", "/v1/retrieve"):
            response = client.post(endpoint, json={"question": "a", "where": wrong})
            assert response.status_code == 422 and words in response.json()["error"]["message"]


@pytest.mark.parametrize("endpoint", ["/v1/answers", "/v1/retrieve"])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "give question or questions"),
        ({"question": "a", "questions": ["b"]}, "not both"),
        ({"questions": []}, "questions"),
        ({"question": ""}, "question"),
        ({"question": "  \n"}, "empty"),
        ({"questions": ["a", " "]}, "empty"),
        ({"question": "Lima " * 200}, "the encoder reads"),
        ({"question": "a", "n_docs": 0}, "n_docs"),
        ({"question": "a", "n_docs": "2"}, "n_docs"),
        ({"question": "a", "n_docs": 10**30}, "limit n_docs"),
        ({"question": "a", "n_docs": 21}, "n_docs is 21, but this service allows at most 20 (limit n_docs)"),
        ({"question": "a" * 2001}, "limit question_characters"),
        ({"questions": ["a"] * 17}, "limit questions"),
        ({"question": "a", "colour": "red"}, "colour"),
        ({"question": "\ud800"}, "question"),
    ],
)
def test_invalid_requests_are_rejected(client: httpx.Client, endpoint: str, body: dict, words: str):
    response = client.post(endpoint, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text
    assert words in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"question": "a", "num_beams": 9}, "limit num_beams"),
        ({"question": "a", "max_new_tokens": 257}, "limit max_new_tokens"),
        ({"question": "a", "formulation": "both"}, "formulation"),
        ({"questions": ["a", "b"], "stream": True}, "Only one question"),
        ({"question": "Lima " * 200, "stream": True}, "the encoder reads"),
    ],
)
def test_invalid_answer_options_are_rejected(client: httpx.Client, body: dict, words: str):
    response = client.post("/v1/answers", json=body)
    assert response.status_code == 422, response.text
    assert words in response.json()["error"]["message"]


def test_settings_are_the_defaults_of_requests(pipeline: RagPipeline):
    settings = ServingSettings(n_docs=3, max_new_tokens=4, limits=Limits(n_docs=3))
    with served(pipeline, settings) as running, running.client() as client:
        (answer,) = client.post("/v1/answers", json={"question": QUESTIONS[0]}).json()["answers"]
        assert_same(answer, pipeline(QUESTIONS[0], n_docs=3, max_new_tokens=4).to_dict())
        description = client.get("/v1/knowledge-base").json()
        assert description["defaults"] == {
            "n_docs": 3,
            "num_beams": 1,
            "max_new_tokens": 4,
            "min_confidence": 0,
        }
        assert description["limits"]["n_docs"] == 3
        assert description["passages"] == 3


def test_the_threshold_of_a_calibration_is_the_default(
    pipeline: RagPipeline, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "min_confidence", 0.25)
    with served(pipeline) as server, server.client() as client:
        assert client.get("/v1/knowledge-base").json()["defaults"]["min_confidence"] == 0.25


def test_answers_below_the_threshold_are_withheld(client: httpx.Client, pipeline: RagPipeline):
    body = {"question": QUESTIONS[0], "max_new_tokens": 6, "min_confidence": 1.0}
    (withheld,) = client.post("/v1/answers", json=body).json()["answers"]
    given = pipeline(QUESTIONS[0], max_new_tokens=6)
    assert withheld["answer"] == "The documents do not say."
    assert (withheld["answered"], withheld["best_guess"], withheld["tokens"]) == (False, given.answer, [])
    assert withheld["confidence"] == pytest.approx(given.confidence, abs=1e-4)
    events = events_of(client.post("/v1/answers", json={**body, "stream": True}))
    assert [data["text"] for name, data in events if name == "token"] == [withheld["answer"]]
