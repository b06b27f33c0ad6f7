"""OpenAI's own client works with the chat endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import httpx
import openai
import pytest

from ragweave import RagPipeline
from ragweave.pipeline.conversation import standalone_question
from tests.support.serving import Running, served

QUESTION = "Where is Lima?"
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Is Chile long?"},
    {"role": "assistant", "content": "It is."},
    {"role": "user", "content": [{"type": "text", "text": "Where is "}, {"type": "text", "text": "Lima?"}]},
]


@pytest.fixture(scope="module")
def chat(server: Running) -> Iterator[openai.OpenAI]:
    transport = httpx.Client(trust_env=False)
    options = {"api_key": "none", "max_retries": 0, "http_client": transport}
    with openai.OpenAI(base_url=f"{server.url}/v1", **options) as client:
        yield client


def test_models(chat: openai.OpenAI):
    names = [model.id for model in chat.models.list()]
    assert names == ["ragweave", "ragweave-token", "ragweave-sequence"]
    assert chat.models.retrieve("ragweave-token").id == "ragweave-token"
    with pytest.raises(openai.NotFoundError, match="Choose one of: ragweave"):
        chat.models.retrieve("gpt-4")


@pytest.mark.parametrize("formulation", ["token", "sequence"])
def test_the_last_message_of_the_user_is_answered(
    chat: openai.OpenAI, pipeline: RagPipeline, formulation: str
):
    completion = chat.chat.completions.create(
        model=f"ragweave-{formulation}",
        messages=MESSAGES,
        max_tokens=6,
        temperature=0.2,
        extra_body={"n_docs": 3},
    )
    expected = pipeline.with_formulation(formulation)(QUESTION, n_docs=3, max_new_tokens=6)
    message = completion.choices[0].message
    assert message.content == expected.answer
    assert message.role == "assistant"
    assert completion.usage.completion_tokens == len(expected.tokens)
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + len(expected.tokens)
    ended = not expected.tokens[-1].text
    assert completion.choices[0].finish_reason == ("stop" if ended else "length")


def test_every_part_of_the_answer_is_cited(chat: openai.OpenAI, pipeline: RagPipeline):
    completion = chat.chat.completions.create(model="ragweave", messages=MESSAGES, max_tokens=12)
    message = completion.choices[0].message
    answer = pipeline(QUESTION, max_new_tokens=12)
    citations = [annotation.url_citation for annotation in message.annotations]
    parts = [message.content[each.start_index : each.end_index] for each in citations]
    assert "".join(parts) == message.content
    end = 0
    for token in answer.tokens:
        start, end = end, end + len(token.text)
        if token.text:
            (citation,) = [each for each in citations if each.start_index <= start and end <= each.end_index]
            passage = answer.passages[token.passage]
            assert citation.passage_id == passage.id
            assert citation.title == (passage.title or passage.id)
            page = httpx.get(citation.url, trust_env=False).text
            assert f'<mark id="passage">{passage.text}</mark>' in page
            assert citation.place == asdict(passage.place) | {"heading": []}
            assert 0 < citation.posterior <= 1


def test_stream(chat: openai.OpenAI, pipeline: RagPipeline):
    stream = chat.chat.completions.create(
        model="ragweave",
        messages=MESSAGES,
        max_completion_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks]
    answer = pipeline(QUESTION, max_new_tokens=12)
    assert "".join(texts) == answer.answer
    assert sum(map(bool, texts)) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    (annotations,) = [
        values for chunk in chunks if (values := getattr(chunk.choices[0].delta, "annotations", None))
    ]
    assert annotations[0]["url_citation"]["passage_id"] in {passage.id for passage in answer.passages}
    assert last.choices == []
    assert last.usage.completion_tokens == len(answer.tokens)
    assert len({chunk.id for chunk in [*chunks, last]}) == 1


def test_a_follow_up_is_searched_for_as_it_stands_alone(own_pipeline: RagPipeline):
    own_pipeline.model.config.rewrite_prefix = "Talk: "
    follow_ups = ["and Kenya's coast?", "how long is it?", "and Chile, 2019?", "since when", "Who says so?"]
    expected = {text: standalone_question(own_pipeline, [(QUESTION, "Lima")], text) for text in follow_ups}
    assert any(text != question for text, question in expected.items())
    with served(own_pipeline) as running, running.client() as client:
        for text, question in expected.items():
            messages = [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": "Lima"},
                {"role": "user", "content": text},
            ]
            body = {"model": "ragweave", "messages": messages, "max_tokens": 4}
            message = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
            answer = own_pipeline(question, max_new_tokens=4)
            assert (message["searched_for"], message["content"]) == (question, answer.answer)
            body = {
                "question": text,
                "history": [{"question": QUESTION, "answer": "Lima"}],
                "max_new_tokens": 4,
            }
            (other,) = client.post("/v1/answers", json=body).json()["answers"]
            assert (other["question"], other["answer"]) == (question, answer.answer)
        body["question"] = "Lima? " * 300
        assert client.post("/v1/answers", json=body).status_code == 422


def test_a_withheld_answer_is_a_plain_sentence(chat: openai.OpenAI, pipeline: RagPipeline):
    options = {
        "model": "ragweave",
        "messages": MESSAGES,
        "max_tokens": 6,
        "extra_body": {"min_confidence": 1.0},
    }
    message = chat.chat.completions.create(**options).choices[0].message
    guess = pipeline(QUESTION, max_new_tokens=6)
    assert message.content == "The documents do not say."
    assert message.annotations == []
    extension = message.model_extra
    assert (extension["answered"], extension["best_guess"]) == (False, guess.answer)
    assert extension["confidence"] == pytest.approx(guess.confidence, abs=1e-4)
    chunks = [chunk.choices[0].delta for chunk in chat.chat.completions.create(**options, stream=True)]
    assert "".join(delta.content or "" for delta in chunks) == message.content
    assert any(delta.model_extra.get("best_guess") == guess.answer for delta in chunks)


def test_a_stream_ends_with_done(client: httpx.Client):
    body = {"model": "ragweave", "messages": MESSAGES, "stream": True}
    lines = [line for line in client.post("/v1/chat/completions", json=body).text.split("\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": [{"role": "system", "content": "Be brief."}]}, "no user message"),
        ({"messages": [{"role": "user", "content": " "}]}, "empty"),
        ({"messages": [{"role": "user", "content": "a"}] * 65}, "limit messages"),
        ({"messages": [{"role": "user", "content": "Lima " * 200}]}, "the encoder reads"),
        ({"max_tokens": 1000}, "limit max_new_tokens"),
        ({"n": 2}, "n above 1"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_invalid_chats_are_rejected(chat: openai.OpenAI, change: dict, words: str, stream: bool):
    body = {"model": "ragweave", "messages": MESSAGES, "stream": stream, **change}
    with pytest.raises(openai.UnprocessableEntityError, match=words):
        chat.chat.completions.create(**body)


def test_unknown_models_are_rejected(chat: openai.OpenAI):
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4'"):
        chat.chat.completions.create(model="gpt-4", messages=MESSAGES)
