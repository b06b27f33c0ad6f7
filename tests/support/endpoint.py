"""An OpenAI-compatible server on loopback whose answers a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.serving import in_thread

Reply = list[tuple[str, float]] | Response
"""The tokens of an answer with their log-probabilities, or any other response."""


@dataclass
class Endpoint:
    """A running server.

    Attributes:
        url: Its address.
        reply: Makes the reply to a user's message, or to a prompt.
        bodies: The bodies of the requests so far.
        headers: Their headers.
    """

    url: str
    reply: Callable[[str], Reply]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


def completion(tokens: list[tuple[str, float]], text: str | None = None) -> Response:
    """A chat completion of tokens with their log-probabilities."""
    scored = [
        {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []}
        for token, value in tokens
    ]
    content = "".join(token for token, _ in tokens) if text is None else text
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "logprobs": {"content": scored}, "finish_reason": "stop"}
    return JSONResponse({"id": "1", "object": "chat.completion", "model": "tiny", "choices": [choice]})


def text_completion(tokens: list[tuple[str, float | None]]) -> Response:
    """A completion, or a prompt that is repeated, of tokens with their log-probabilities."""
    texts = [token for token, _ in tokens]
    offsets = [len("".join(texts[:number])) for number in range(len(texts))]
    logprobs = {"tokens": texts, "token_logprobs": [value for _, value in tokens], "text_offset": offsets}
    choice = {"index": 0, "text": "".join(texts), "logprobs": logprobs, "finish_reason": "stop"}
    return JSONResponse({"id": "1", "object": "text_completion", "model": "tiny", "choices": [choice]})


def prompt_logprobs(tokens: list[tuple[str, float]]) -> Response:
    """vLLM's response to a chat with ``prompt_logprobs``: the tokens of the prompt, behind the first."""
    scores = [
        {str(number): {"logprob": value, "rank": 1, "decoded_token": token}}
        for number, (token, value) in enumerate(tokens)
    ]
    choice = {"index": 0, "message": {"role": "assistant", "content": "."}, "finish_reason": "length"}
    return JSONResponse(
        {"object": "chat.completion", "choices": [choice], "prompt_logprobs": [None, *scores]}
    )


@contextmanager
def endpoint(reply: Callable[[str], Reply]) -> Iterator[Endpoint]:
    """Run a server within a context."""

    async def chat(request: Request) -> Response:
        body = await request.json()
        running.bodies.append(body)
        running.headers.append(dict(request.headers))
        if "prompt" in body:
            answer = await run_in_threadpool(running.reply, body["prompt"])
            return answer if isinstance(answer, Response) else text_completion(answer)
        *_, asked, last = [{"content": ""}, *body["messages"]]
        if body.get("continue_final_message"):
            if body.get("add_generation_prompt", True):  # as in vLLM
                return JSONResponse({"error": {"message": "not both"}}, status_code=400)
            return await run_in_threadpool(running.reply, f"{asked['content']}\nAnswer: {last['content']}")
        answer = await run_in_threadpool(running.reply, last["content"])
        return answer if isinstance(answer, Response) else completion(answer)

    paths = ("/v1/chat/completions", "/v1/completions")
    application = Starlette(routes=[Route(path, chat, methods=["POST"]) for path in paths])
    server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="off"))
    with in_thread(server) as (url, _):
        running = Endpoint(f"{url}/v1", reply)
        yield running
