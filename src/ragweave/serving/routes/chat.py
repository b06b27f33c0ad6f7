"""``POST /v1/chat/completions`` and ``GET /v1/models``, as OpenAI's clients know them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from ragweave.errors import QuestionError
from ragweave.pipeline.rag_pipeline import FORMULATIONS, Formulation
from ragweave.serving.citations import annotations_of
from ragweave.serving.errors import NotThereError, UnsupportedError
from ragweave.serving.failures import error_body
from ragweave.serving.jobs import AnswerOptions, Done, Retrieved, Said
from ragweave.serving.limits import check_counts, check_questions
from ragweave.serving.routes.shared import Given, errors
from ragweave.serving.schemas import (
    ChatChoice,
    ChatMessage,
    ChatRequest,
    ChatResponse,
    ModelCard,
    ModelList,
    Usage,
)
from ragweave.serving.waiting import event, event_stream, while_connected

router = APIRouter(prefix="/v1", tags=["OpenAI"])

MODEL = "ragweave"
MODELS: dict[str, Formulation | None] = {MODEL: None, **{f"{MODEL}-{own}": own for own in FORMULATIONS}}
"""The names that a chat may give, and the formulation that each stands for."""


@router.get("/models", response_model=ModelList, responses=errors(401))
async def models(service: Given) -> ModelList:
    """The model under its own formulation, and under each of both."""
    return ModelList(data=[ModelCard(id=name, created=service.started) for name in MODELS])


@router.get("/models/{name}", response_model=ModelCard, responses=errors(401, 404, 422))
async def model(name: str, service: Given) -> ModelCard:
    """One of the models."""
    _formulation_of(name)
    return ModelCard(id=name, created=service.started)


@router.post(
    "/chat/completions",
    response_model=ChatResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **errors(400, 401, 404, 413, 422, 429, 503, 504),
    },
)
async def complete(request: Request, body: ChatRequest, service: Given) -> ChatResponse | StreamingResponse:
    """Answer the last message of the user; earlier messages are not read.

    The message's annotations cite the passage that each part of the answer came from. Decoding is deterministic:
    temperature, top_p and seed are passed over.
    """
    _refuse_unsupported(body)
    check_counts(service.settings.limits, messages=len(body.messages))
    question = _question(body)
    options = service.options(
        n_docs=body.n_docs,
        num_beams=body.num_beams,
        max_new_tokens=body.max_completion_tokens or body.max_tokens,
        formulation=_formulation_of(body.model),
    )
    completion = _Completion(body.model, options)
    check_questions(service.settings.limits, [question])
    prompt_tokens = await service.look(lambda engine: engine.token_count(question))
    if not body.stream:
        (answer,) = await while_connected(request, service.answer([question], options))
        return completion.whole(Done(answer), prompt_tokens)
    events = service.stream(question, options)
    first = await while_connected(request, anext(events))
    usage = body.stream_options is not None and body.stream_options.include_usage
    return event_stream(completion.chunks(first, events, prompt_tokens if usage else None))


class _Completion:
    """One answer on its way to a client.

    Args:
        model: The name that the client gave.
        options: How the question is answered.
    """

    def __init__(self, model: str, options: AnswerOptions) -> None:
        self._model = model
        self._options = options
        self._id = f"chatcmpl-{uuid4().hex}"
        self._created = int(time.time())

    def whole(self, done: Done, prompt_tokens: int) -> ChatResponse:
        """The answer as one response."""
        message = ChatMessage(content=done.answer.answer, annotations=annotations_of(done.answer))
        return ChatResponse(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[ChatChoice(message=message, finish_reason=self._finish_reason(done))],
            usage=_usage(prompt_tokens, done),
        )

    async def chunks(
        self,
        first: Retrieved | Said | Done,
        events: AsyncGenerator[Retrieved | Said | Done],
        prompt_tokens: int | None,
    ) -> AsyncIterator[str]:
        """The answer as events, as it is being made; its citations with the last."""
        yield self._chunk({"role": "assistant", "content": ""})
        try:
            async with aclosing(events):
                for text in self._texts(first, prompt_tokens):
                    yield text
                async for own in events:
                    for text in self._texts(own, prompt_tokens):
                        yield text
        except Exception as error:
            yield event(error_body(error))
            return
        yield event("[DONE]")

    def _texts(self, own: Retrieved | Said | Done, prompt_tokens: int | None) -> list[str]:
        match own:
            case Retrieved():
                return []
            case Said(text):
                return [self._chunk({"content": text})]
            case Done(answer):
                cited = [citation.model_dump() for citation in annotations_of(answer)]
                texts = [
                    self._chunk({"annotations": cited}),
                    self._chunk({}, finish_reason=self._finish_reason(own)),
                ]
                if prompt_tokens is not None:
                    usage = _usage(prompt_tokens, own).model_dump()
                    texts.append(event({**self._head(), "choices": [], "usage": usage}))
                return texts

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return event({**self._head(), "choices": [choice]})

    def _head(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
        }

    def _finish_reason(self, done: Done) -> Any:
        tokens = done.answer.tokens
        cut = len(tokens) >= self._options.max_new_tokens and bool(tokens[-1].text)
        return "length" if cut else "stop"


def _usage(prompt_tokens: int, done: Done) -> Usage:
    said = len(done.answer.tokens)
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=said, total_tokens=prompt_tokens + said)


def _formulation_of(name: str) -> Formulation | None:
    if name not in MODELS:
        raise NotThereError(f"There is no model of this name: choose one of {', '.join(MODELS)}.")
    return MODELS[name]


def _question(body: ChatRequest) -> str:
    said = [message.words for message in body.messages if message.role == "user"]
    if not said:
        raise QuestionError("There is no message of the user; ask something.")
    return said[-1]


def _refuse_unsupported(body: ChatRequest) -> None:
    refused: dict[str, Callable[[], bool]] = {
        "n above 1": lambda: (body.n or 1) > 1,
        "tools": lambda: bool(body.tools),
        "logprobs": lambda: bool(body.logprobs),
        "response_format": lambda: (body.response_format or {}).get("type", "text") != "text",
    }
    for name, asked in refused.items():
        if asked():
            raise UnsupportedError(f"This service does not do {name}: leave it out.")
