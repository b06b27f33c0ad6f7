"""``POST /v1/answers`` and ``POST /v1/retrieve``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from ragweave.serving.errors import UnsupportedError
from ragweave.serving.failures import error_body
from ragweave.serving.jobs import Done, Retrieved, Said
from ragweave.serving.routes.shared import Given, errors
from ragweave.serving.schemas import (
    AnswersRequest,
    AnswersResponse,
    Retrieval,
    RetrieveRequest,
    RetrieveResponse,
)
from ragweave.serving.waiting import event, event_stream, while_connected

router = APIRouter(prefix="/v1", tags=["answers"])


@router.post(
    "/answers",
    response_model=AnswersResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **errors(400, 401, 413, 422, 429, 503, 504),
    },
)
async def answers(
    request: Request, body: AnswersRequest, service: Given
) -> AnswersResponse | StreamingResponse:
    """Answer questions, with the passages they were answered from and where each token came from.

    With `stream`, of one question: events `passages`, `token` (as they are decided, where greedy RAG-Token
    decides token by token), `answer` at the end, or `error`.
    """
    options = service.options(
        n_docs=body.n_docs,
        num_beams=body.num_beams,
        max_new_tokens=body.max_new_tokens,
        formulation=body.formulation,
    )
    if not body.stream:
        found = await while_connected(request, service.answer(body.asked, options))
        return AnswersResponse(answers=found)
    if len(body.asked) > 1:
        raise UnsupportedError("Only one question can be streamed: give question, not questions.")
    events = service.stream(body.asked[0], options)
    # What is refused is refused with its status; only what fails later is told as an event.
    first = await while_connected(request, anext(events))
    return event_stream(_told(first, events))


@router.post(
    "/retrieve", response_model=RetrieveResponse, responses=errors(400, 401, 413, 422, 429, 503, 504)
)
async def retrieve(request: Request, body: RetrieveRequest, service: Given) -> RetrieveResponse:
    """Find passages without answering."""
    found = await while_connected(request, service.retrieve(body.asked, body.n_docs))
    pairs = zip(body.asked, found, strict=True)
    return RetrieveResponse(
        results=[Retrieval(question=question, passages=list(own)) for question, own in pairs]
    )


async def _told(
    first: Retrieved | Said | Done, events: AsyncGenerator[Retrieved | Said | Done]
) -> AsyncIterator[str]:
    try:
        async with aclosing(events):
            yield _as_event(first)
            async for own in events:
                yield _as_event(own)
    except Exception as error:
        yield event(error_body(error), "error")


def _as_event(own: Retrieved | Said | Done) -> str:
    match own:
        case Retrieved(passages):
            return event({"passages": [asdict(passage) for passage in passages]}, "passages")
        case Said(text):
            return event({"text": text}, "token")
        case Done(answer):
            return event(answer.to_dict(), "answer")
