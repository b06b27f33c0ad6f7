"""What the service sends is what its OpenAPI schema says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest

from ragweave import RagPipeline
from ragweave.serving.settings import ServingSettings
from tests.serving.test_load import QUESTION
from tests.support.serving import Running, served

CHAT = {"model": "ragweave", "messages": [{"role": "user", "content": "Where is Lima?"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def schema(server: Running) -> dict[str, Any]:
    with server.client() as client:
        return client.get("/openapi.json").json()


def content(schema: dict[str, Any], response: httpx.Response) -> dict[str, Any]:
    """What the schema says about the content of a response with this status and type."""
    request = response.request
    operation = schema["paths"][request.url.path][request.method.lower()]
    described = operation["responses"][str(response.status_code)]["content"]
    return described[response.headers["content-type"].partition(";")[0]]


def check(schema: dict[str, Any], part: dict[str, Any], value: Any) -> None:
    """Validate a value against a part of the schema."""
    jsonschema_rs.validate({**part, "components": schema["components"]}, value)


def items_of(response: httpx.Response) -> Iterator[dict[str, str]]:
    """The server-sent events of a stream, each with the fields that it has."""
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        yield dict(line.split(": ", 1) for line in block.split("\n"))


def check_stream(schema: dict[str, Any], response: httpx.Response) -> list[str]:
    """Validate all events of a stream, and return their names."""
    described = content(schema, response)["itemSchema"]
    names = []
    for item in items_of(response):
        name = item.get("event", "message")
        names.append(name)
        if item["data"] == "[DONE]":
            continue
        check(schema, described, item)
        (data,) = [
            one["properties"]["data"]["contentSchema"]
            for one in described["oneOf"]
            if one["properties"]["event"]["const"] == name
        ]
        check(schema, data, json.loads(item["data"]))
    return names


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/v1/knowledge-base"])
def test_status(schema: dict[str, Any], client: httpx.Client, path: str):
    response = client.get(path)
    assert response.status_code == 200
    check(schema, content(schema, response)["schema"], response.json())


def test_refusals(schema: dict[str, Any], pipeline: RagPipeline):
    with (
        served(pipeline, ServingSettings(allowed_hosts=("127.0.0.1",))) as running,
        running.client() as client,
    ):
        for path in ("/healthz", "/readyz", "/v1/models"):
            response = client.get(path, headers={"Host": "rebound.example"})
            assert response.status_code == 403
            check(schema, content(schema, response)["schema"], response.json())
        running.service.batcher.close()
        response = client.get("/readyz")
        assert response.status_code == 503
        check(schema, content(schema, response)["schema"], response.json())


@pytest.mark.parametrize(
    "more",
    [{}, {"formulation": "sequence"}, {"min_confidence": 1.0}, {"where": "line > 99"}, {"num_beams": 2}],
)
def test_answers(schema: dict[str, Any], client: httpx.Client, more: dict[str, Any]):
    body = {**QUESTION, **more}
    response = client.post("/v1/answers", json=body)
    check(schema, content(schema, response)["schema"], response.json())
    streamed = client.post("/v1/answers", json={**body, "stream": True})
    assert set(check_stream(schema, streamed)) == {"passages", "token", "answer"}


@pytest.mark.parametrize("more", [{}, {"stream_options": {"include_usage": True}}, {"min_confidence": 1.0}])
def test_chat(schema: dict[str, Any], client: httpx.Client, more: dict[str, Any]):
    response = client.post("/v1/chat/completions", json={**CHAT, **more})
    check(schema, content(schema, response)["schema"], response.json())
    streamed = client.post("/v1/chat/completions", json={**CHAT, **more, "stream": True})
    assert set(check_stream(schema, streamed)) == {"message"}
    assert list(items_of(streamed))[-1] == {"data": "[DONE]"}


@pytest.mark.parametrize("more", [{}, {"max_output_tokens": 1}, {"min_confidence": 1.0}])
def test_responses(schema: dict[str, Any], client: httpx.Client, more: dict[str, Any]):
    body = {"model": "ragweave", "input": "Where is Lima?", "max_output_tokens": 4, **more}
    response = client.post("/v1/responses", json=body)
    check(schema, content(schema, response)["schema"], response.json())
    names = check_stream(schema, client.post("/v1/responses", json={**body, "stream": True}))
    assert names[0] == "response.created"
    assert names[-1] in ("response.completed", "response.incomplete")


class Broken(RagPipeline):
    """Fails after the passages of a question."""

    def stream(self, questions, *, callback, **options):
        callback.on_passages(0, [])
        raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("path", "body", "last"), [("/v1/answers", QUESTION, "error"), ("/v1/chat/completions", CHAT, "message")]
)
def test_an_error_in_a_stream(
    schema: dict[str, Any], pipeline: RagPipeline, path: str, body: dict[str, Any], last: str
):
    broken = Broken(pipeline.model, pipeline.retriever, pipeline.encoder)
    with served(broken) as running, running.client() as client:
        streamed = client.post(path, json={**body, "stream": True})
        assert check_stream(schema, streamed)[-1] == last
        assert "Internal error" in list(items_of(streamed))[-1]["data"]
