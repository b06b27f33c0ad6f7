"""``POST /v1/answers`` and ``POST /v1/retrieve``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import Discriminator, Tag

from ragweave.provenance.answers import Answer
from ragweave.serving.batching import AnswerReady, Event, PassagesRetrieved, TextGenerated
from ragweave.serving.errors import UnsupportedError
from ragweave.serving.routes.dependencies import ServiceDependency, errors
from ragweave.serving.routes.streaming import event_stream, reference, sse, stream_schema, while_connected
from ragweave.serving.schemas import (
    AgentDocument,
    AgentHit,
    AgentRetrieveRequest,
    AgentRetrieveResponse,
    AnswersRequest,
    AnswersResponse,
    ErrorResponse,
    Retrieval,
    RetrieveRequest,
    RetrieveResponse,
)
from ragweave.types import ScoredPassage

router = APIRouter(prefix="/v1", tags=["answers"])
_ERRORS = errors(400, 401, 404, 413, 422, 429, 503, 504)
_EVENTS = {
    "passages": {
        "type": "object",
        "required": ["passages"],
        "properties": {"passages": {"type": "array", "items": reference(ScoredPassage)}},
    },
    "token": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
    "answer": reference(Answer),
    "error": reference(ErrorResponse),
}


@router.post("/answers", response_model=AnswersResponse, responses={200: stream_schema(_EVENTS), **_ERRORS})
async def answers(
    request: Request, body: AnswersRequest, service: ServiceDependency
) -> AnswersResponse | StreamingResponse:
    """Answer questions, with the passages and the provenance of each token.

    With `stream`, for one question: the events `passages`, `token` and `answer`, or `error`. Greedy RAG-Token sends
    tokens as it decodes them; everything else sends the answer at the end.
    """
    await service.check_where(body.where)
    options = service.options(
        n_docs=body.n_docs,
        num_beams=body.num_beams,
        max_new_tokens=body.max_new_tokens,
        formulation=body.formulation,
        min_confidence=body.min_confidence,
        where=body.where,
    )
    questions = body.all_questions
    service.check_limits(messages=2 * len(body.history))
    turns = [(turn.question, turn.answer) for turn in body.history]
    if not body.stream:
        answering = service.answer(questions, options, turns)
        return AnswersResponse(answers=await while_connected(request, answering))
    if len(questions) > 1:
        raise UnsupportedError("Only one question can be streamed. Send question instead of questions.")
    return await event_stream(
        request, service.stream(questions[0], options, turns), _render, error_name="error"
    )


_Retrieve = Annotated[
    Annotated[RetrieveRequest, Tag("(ragweave)")] | Annotated[AgentRetrieveRequest, Tag("(agent)")],
    Discriminator(lambda body: "(agent)" if isinstance(body, dict) and "queries" in body else "(ragweave)"),
]


@router.post("/retrieve", response_model=RetrieveResponse | AgentRetrieveResponse, responses=_ERRORS)
async def retrieve(
    request: Request, body: _Retrieve, service: ServiceDependency
) -> RetrieveResponse | AgentRetrieveResponse:
    """Retrieve passages without answering.

    Agents that were trained with search, such as Search-R1, may send `queries`, `topk` and `return_scores`, and get
    `result` in the format that they expect.
    """
    if isinstance(body, AgentRetrieveRequest):
        questions, n_docs = body.queries, body.topk
    else:
        questions, n_docs = body.all_questions, body.n_docs
    service.check_questions(questions)
    service.check_limits(n_docs=n_docs)
    n_docs = n_docs or service.settings.n_docs
    retrieving = service.queries.run(service.engine.retrieve, questions, n_docs, body.where)
    results = await while_connected(request, retrieving)
    if isinstance(body, AgentRetrieveRequest):
        return AgentRetrieveResponse(result=[_for_agent(hits, body.return_scores) for hits in results])
    return RetrieveResponse(
        results=[
            Retrieval(question=question, passages=list(passages))
            for question, passages in zip(questions, results, strict=True)
        ]
    )


def _for_agent(passages: Sequence[ScoredPassage], scores: bool) -> list[Any]:
    documents = [
        # The first line of the contents is the title, so a title of several lines is joined.
        AgentDocument(
            id=passage.id,
            contents=f"{' '.join(passage.title.split())}\n{passage.text}",
            source=passage.source,
            place=passage.place,
        )
        for passage in passages
    ]
    hits = zip(documents, passages, strict=True)
    return [AgentHit(document=one, score=hit.doc_score) for one, hit in hits] if scores else documents


def _render(event: Event) -> list[str]:
    match event:
        case PassagesRetrieved(passages):
            return [sse({"passages": [asdict(passage) for passage in passages]}, "passages")]
        case TextGenerated(text):
            return [sse({"text": text}, "token")]
        case AnswerReady(answer):
            return [sse(answer.to_dict(), "answer")]
