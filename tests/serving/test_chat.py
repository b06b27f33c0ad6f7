"""OpenAI's own client works with chats, responses and embeddings, called as LangChain and Open WebUI call it."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import asdict

import httpx
import numpy as np
import openai
import pytest

from ragweave import RagPipeline
from ragweave.pipeline.conversation import standalone_question
from ragweave.serving.settings import Limits, ServingSettings
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
    assert names == ["ragweave", "ragweave-token", "ragweave-sequence", "ragweave-concat", "ragweave-pced"]
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
            assert citation.quote.strip(" …") in " ".join(passage.text.split())


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
        ({"messages": [{"role": "user", "content": "a" * 32_769}]}, "limit message_characters"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "reads no image_url"),
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


def test_an_answer_ends_before_a_stop(chat: openai.OpenAI, pipeline: RagPipeline):
    whole = pipeline(QUESTION, max_new_tokens=12)
    for stop in (whole.answer[4:9], [whole.answer[-2:], whole.answer[4:5]], "not in the answer"):
        stops = [stop] if isinstance(stop, str) else stop
        end = min((whole.answer.find(one) for one in stops if one in whole.answer), default=None)
        options = {"model": "ragweave", "messages": MESSAGES, "max_tokens": 12, "stop": stop}
        choice = chat.chat.completions.create(**options).choices[0]
        assert choice.message.content == whole.answer[:end]
        assert end is None or choice.finish_reason == "stop"
        assert choice.message.annotations[-1].url_citation.end_index == len(whole.answer[:end])
        chunks = list(chat.chat.completions.create(**options, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.answer[:end]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_lengths_are_upper_bounds(pipeline: RagPipeline, name: str):
    settings = ServingSettings(max_new_tokens=2, limits=Limits(max_new_tokens=3))
    with served(pipeline, settings) as running, running.client() as client:
        body = {"model": "ragweave", "messages": MESSAGES, name: 4096}
        usage = client.post("/v1/chat/completions", json=body).json()["usage"]
        assert usage["completion_tokens"] == 3


def test_usage_in_streams(chat: openai.OpenAI):
    stream = {"model": "ragweave", "messages": MESSAGES, "max_tokens": 3, "stream": True}
    for asked in ({"include_usage": True}, {"include_usage": False}, {"include_usage": None}, None):
        *chunks, last = chat.chat.completions.create(**stream, stream_options=asked)
        assert all(chunk.usage is None for chunk in chunks)
        assert (last.usage is not None) == bool(asked and asked["include_usage"])


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "Where \ud83d?"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "\ud83d"}]}]},
        {"messages": MESSAGES, "stop": "\ud83d"},
        {"messages": MESSAGES, "where": "kind = '\ud83d'"},
        {"input": "Where \ud83d?"},
        {"input": ["Lima", "\ud83d"]},
    ],
)
def test_half_a_character_is_rejected(client: httpx.Client, body: dict):
    paths = ["/v1/responses", "/v1/embeddings"] if "input" in body else ["/v1/chat/completions"]
    for path in paths:
        sent = json.dumps({"model": "ragweave", **body})
        response = client.post(path, content=sent, headers={"Content-Type": "application/json"})
        assert response.status_code == 422, response.text


def test_a_long_message_is_searched_for_by_its_last_question(chat: openai.OpenAI, pipeline: RagPipeline):
    text = "The port was built in 1912. It is 3.5 km long. " * 600
    for content, question in (
        (f"Who was it? {text}\n\n{QUESTION}\nAnswer briefly.", QUESTION),
        (f"{QUESTION} {text}", QUESTION),
        (QUESTION, QUESTION),
    ):
        messages = [{"role": "user", "content": content}]
        message = chat.chat.completions.create(model="ragweave", messages=messages, max_tokens=4)
        assert message.choices[0].message.searched_for == question
    message = [{"role": "user", "content": text + "It is in Lima."}]
    completion = chat.chat.completions.create(model="ragweave", messages=message, max_tokens=4)
    searched = completion.choices[0].message.searched_for
    assert searched.endswith("It is in Lima.")
    assert len(searched) > 20
    message[0]["content"] = f"{'港' * 9000}\uff1f"
    completion = chat.chat.completions.create(model="ragweave", messages=message, max_tokens=4)
    assert completion.choices[0].message.searched_for.endswith("港\uff1f")


@pytest.mark.parametrize(
    "change",
    [
        {"stream": None, "stop": None, "n": 1, "response_format": {"type": "text"}, "logprobs": False},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none"},
        {"tools": [], "stop": []},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
                {"role": "assistant", "content": None, "tool_calls": []},
                {"role": "tool", "content": "17", "tool_call_id": "1"},
                {"role": "user", "content": QUESTION},
            ]
        },
    ],
)
def test_what_means_nothing_here_is_passed_over(client: httpx.Client, pipeline: RagPipeline, change: dict):
    body = {"model": "ragweave", "messages": MESSAGES, "max_tokens": 6, **change}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    message = response.json()["choices"][0]["message"]
    assert message["content"] == pipeline(QUESTION, max_new_tokens=6).answer


def test_langchain(chat: openai.OpenAI, pipeline: RagPipeline):
    """ChatOpenAI sends parts and null for what is not set, and wants the usage of a stream.

    OpenAIEmbeddings asks for base64. Unless told otherwise, it sends the numbers of OpenAI's own tokens.
    """
    stream = chat.chat.completions.create(
        model="ragweave",
        messages=[
            {"role": "system", "content": "Use the context."},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        ],
        stream=True,
        stream_options={"include_usage": True},
        n=1,
        temperature=0.7,
        stop=None,
        max_completion_tokens=6,
        extra_body={"parallel_tool_calls": None, "user": None},
    )
    *chunks, last = stream
    answer = pipeline(QUESTION, max_new_tokens=6)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.answer
    assert last.usage.completion_tokens == len(answer.tokens)
    response = chat.embeddings.create(model="ragweave", input=["Lima", "Kenya's coast"])
    assert response.usage.total_tokens == sum(map(pipeline.encoder.token_count, ["Lima", "Kenya's coast"]))
    with pytest.raises(openai.UnprocessableEntityError, match="check_embedding_ctx_length=False"):
        chat.embeddings.create(model="ragweave", input=[[17, 4], [9]])


def test_open_webui(client: httpx.Client):
    """Open WebUI lists the models, streams with fields of its own, and has titles made from all messages."""
    (model, *_) = client.get("/v1/models").json()["data"]
    body = {
        "model": model["id"],
        "stream": True,
        "messages": [{"role": "user", "content": QUESTION}],
        "stream_options": {"include_usage": True},
        "chat_id": "c1",
        "features": {"web_search": False},
        "files": None,
        "params": {},
    }
    lines = client.post("/v1/chat/completions", json=body).text.split("\n\n")
    assert lines[-2] == "data: [DONE]"
    assert json.loads(lines[-3].removeprefix("data: "))["usage"]["total_tokens"] > 0
    title = f"### Task:\nGenerate a concise title.\n<chat_history>\n{'USER: x ' * 900}\n</chat_history>"
    body = {"model": model["id"], "stream": False, "messages": [{"role": "user", "content": title}]}
    assert client.post("/v1/chat/completions", json={**body, "max_completion_tokens": 1000}).is_success


@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings_are_the_encoders(
    chat: openai.OpenAI, client: httpx.Client, pipeline: RagPipeline, form: str
):
    texts = ["Lima is the capital of Peru.", "Kenya"]
    expected = pipeline.encoder.encode(texts)
    response = chat.embeddings.create(model="ragweave", input=texts)  # the client asks for base64
    np.testing.assert_allclose([one.embedding for one in response.data], expected, rtol=1e-5, atol=1e-6)
    body = {"model": "ragweave", "input": texts[0], "encoding_format": form, "dimensions": expected.shape[1]}
    (one,) = client.post("/v1/embeddings", json=body).json()["data"]
    vector = one["embedding"]
    if form == "base64":
        vector = np.frombuffer(b64decode(vector), "<f4")
    np.testing.assert_allclose(vector, expected[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input": "Lima " * 600}, "the encoder reads"),
        ({"input": ["a"] * 2049}, "limit embeddings"),
        ({"dimensions": 7}, "Leave dimensions out"),
        ({"input": []}, "input"),
    ],
)
def test_invalid_texts_are_not_embedded(client: httpx.Client, change: dict, words: str):
    response = client.post("/v1/embeddings", json={"model": "ragweave", "input": "Lima", **change})
    assert response.status_code == 422
    assert words in response.json()["error"]["message"]


def test_responses(chat: openai.OpenAI, pipeline: RagPipeline):
    items = [
        {"role": "developer", "content": "Be brief."},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
    ]
    answer = pipeline(QUESTION, max_new_tokens=6)
    for asked in (QUESTION, items):
        options = {"model": "ragweave", "input": asked, "max_output_tokens": 6, "instructions": "Be brief."}
        response = chat.responses.create(**options)
        assert response.output_text == answer.answer
        assert response.usage.output_tokens == len(answer.tokens)
        cut = bool(answer.tokens[-1].text)
        assert response.status == ("incomplete" if cut else "completed")
        (message,) = response.output
        (part,) = message.content
        assert part.annotations[0].type == "url_citation"
        page = httpx.get(part.annotations[0].url, trust_env=False)
        assert '<mark id="passage">' in page.text
        with chat.responses.stream(**options) as stream:
            events = list(stream)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(deltas) == answer.answer
        assert events[-1].type == f"response.{response.status}"
        assert events[-1].response.output_text == answer.answer


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input": [{"role": "assistant", "content": "Lima"}]}, "no user message"),
        ({"input": [{"type": "reasoning"}]}, "no user message"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"background": True}, "background"),
    ],
)
def test_responses_that_need_more_are_rejected(chat: openai.OpenAI, change: dict, words: str):
    with pytest.raises(openai.UnprocessableEntityError, match=words):
        chat.responses.create(**{"model": "ragweave", "input": QUESTION, **change})
