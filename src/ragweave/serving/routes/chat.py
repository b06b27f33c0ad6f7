"""``POST /v1/chat/completions`` and ``GET /v1/models``, for OpenAI clients."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from ragweave.errors import QuestionError
from ragweave.provenance.answers import Answer
from ragweave.serving.batching import AnswerOptions, AnswerReady, Event, PassagesRetrieved, TextGenerated
from ragweave.serving.errors import NotFoundError, UnsupportedError
from ragweave.serving.routes.dependencies import ServiceDependency, errors
from ragweave.serving.routes.document_page import page_url
from ragweave.serving.routes.streaming import STREAM_SCHEMA, event_stream, sse, while_connected
from ragweave.serving.schemas import (
    Annotation,
    ChatChoice,
    ChatMessage,
    ChatRequest,
    ChatResponse,
    Message,
    ModelCard,
    ModelList,
    UrlCitation,
    Usage,
)
from ragweave.types import FORMULATIONS, Formulation

router = APIRouter(prefix="/v1", tags=["OpenAI"])

MODEL = "ragweave"
MODELS: dict[str, Formulation | None] = {MODEL: None, **{f"{MODEL}-{name}": name for name in FORMULATIONS}}
"""The model names that a chat may use, and their formulations; ``None`` is the pipeline's."""


@router.get("/models", response_model=ModelList, responses=errors(401))
async def models(service: ServiceDependency) -> ModelList:
    """The model with its default formulation, and with each formulation."""
    return ModelList(data=[ModelCard(id=name, created=service.started) for name in MODELS])


@router.get("/models/{name}", response_model=ModelCard, responses=errors(401, 404, 422))
async def model(name: str, service: ServiceDependency) -> ModelCard:
    """One of the models."""
    _formulation(name)
    return ModelCard(id=name, created=service.started)


@router.post(
    "/chat/completions",
    response_model=ChatResponse,
    responses={200: STREAM_SCHEMA, **errors(400, 401, 404, 413, 422, 429, 503, 504)},
)
async def complete(
    request: Request, body: ChatRequest, service: ServiceDependency
) -> ChatResponse | StreamingResponse:
    """Answer the last user message.

    With a model that has learned to, a follow-up is made into a question that stands alone from the messages before
    it; `searched_for` holds it. System messages have no effect, since answers are words of the passages. The
    annotations cite the passage behind each part of the answer. Decoding is deterministic: temperature, top_p and
    seed are ignored.
    """
    _check_supported(body)
    service.check_limits(messages=len(body.messages))
    turns, question = _turns(body.messages)
    await service.check_where(body.where)
    options = service.options(
        n_docs=body.n_docs,
        num_beams=body.num_beams,
        max_new_tokens=body.max_completion_tokens or body.max_tokens,
        formulation=_formulation(body.model),
        min_confidence=body.min_confidence,
        where=body.where,
    )
    service.check_questions([question])
    prompt_tokens = await service.queries.run(service.engine.token_count, question)
    usage = body.stream_options is not None and body.stream_options.include_usage
    completion = _Completion(body.model, options, prompt_tokens, str(request.base_url), stream_usage=usage)
    if body.stream:
        return await event_stream(request, service.stream(question, options, turns), completion.chunks)
    (answer,) = await while_connected(request, service.answer([question], options, turns))
    return completion.response(answer)


class _Completion:
    """The completion of one chat, as a response or as chunks."""

    def __init__(
        self, model: str, options: AnswerOptions, prompt_tokens: int, base_url: str, *, stream_usage: bool
    ) -> None:
        self._model = model
        self._options = options
        self._prompt_tokens = prompt_tokens
        self._base_url = base_url
        self._stream_usage = stream_usage
        self._id = f"chatcmpl-{uuid4().hex}"
        self._created = int(time.time())

    def response(self, answer: Answer) -> ChatResponse:
        """The complete answer as one response."""
        message = ChatMessage(
            content=answer.answer, annotations=citations(answer, self._base_url), **_judgement(answer)
        )
        return ChatResponse(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[ChatChoice(message=message, finish_reason=self._finish_reason(answer))],
            usage=self._usage(answer),
        )

    def chunks(self, event: Event) -> list[str]:
        """The chunks of a stream for an event. The last ones carry the citations."""
        match event:
            case PassagesRetrieved():
                return [self._delta({"role": "assistant", "content": ""})]
            case TextGenerated(text):
                return [self._delta({"content": text})]
            case AnswerReady(answer):
                annotations = [citation.model_dump() for citation in citations(answer, self._base_url)]
                chunks = [
                    self._delta({"annotations": annotations, **_judgement(answer)}),
                    self._delta({}, finish_reason=self._finish_reason(answer)),
                ]
                if self._stream_usage:
                    chunks.append(self._chunk(choices=[], usage=self._usage(answer).model_dump()))
                return [*chunks, sse("[DONE]")]

    def _delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return self._chunk(choices=[choice])

    def _chunk(self, **fields: Any) -> str:
        head = {"id": self._id, "object": "chat.completion.chunk", "created": self._created}
        return sse({**head, "model": self._model, **fields})

    def _usage(self, answer: Answer) -> Usage:
        prompt, completion = self._prompt_tokens, len(answer.tokens)
        return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)

    def _finish_reason(self, answer: Answer) -> Literal["stop", "length"]:
        # The token that ends an answer has no text.
        cut = len(answer.tokens) >= self._options.max_new_tokens and answer.tokens[-1].text
        return "length" if cut else "stop"


def citations(answer: Answer, base_url: str) -> list[Annotation]:
    """One citation for each run of tokens that the same passage supports most."""
    ends = accumulate(len(token.text) for token in answer.tokens)
    tokens = [(token, end) for token, end in zip(answer.tokens, ends, strict=True) if token.text]
    annotations = []
    for i, group in groupby(tokens, key=lambda pair: pair[0].passage):
        if i is None:
            continue
        run = list(group)
        passage = answer.passages[i]
        is_page = passage.source.startswith(("http://", "https://"))
        citation = UrlCitation(
            start_index=run[0][1] - len(run[0][0].text),
            end_index=run[-1][1],
            title=passage.title or passage.id,
            url=passage.source if is_page else base_url + page_url(passage.id),
            passage_id=passage.id,
            place=passage.place,
            posterior=sum(token.posteriors[i] for token, _ in run) / len(run),
        )
        annotations.append(Annotation(url_citation=citation))
    return annotations


def _turns(messages: Sequence[Message]) -> tuple[list[tuple[str, str]], str]:
    """The earlier questions with their answers, and the last question."""
    turns: list[tuple[str, str]] = []
    question = None
    for message in messages:
        if message.role == "user":
            question = message.text
        elif message.role == "assistant" and question is not None:
            turns.append((question, message.text))
    if question is None:
        raise QuestionError("There is no user message. Ask a question.")
    return turns, question


def _judgement(answer: Answer) -> dict[str, Any]:
    return {
        "confidence": answer.confidence,
        "answered": answer.answered,
        "best_guess": answer.best_guess,
        "searched_for": answer.question,
    }


def _formulation(name: str) -> Formulation | None:
    if name not in MODELS:
        raise NotFoundError(f"There is no model {name!r}. Choose one of: {', '.join(MODELS)}.")
    return MODELS[name]


def _check_supported(body: ChatRequest) -> None:
    unsupported = {
        "n above 1": (body.n or 1) > 1,
        "tools": bool(body.tools),
        "logprobs": bool(body.logprobs),
        "response_format": (body.response_format or {}).get("type", "text") != "text",
    }
    for name, requested in unsupported.items():
        if requested:
            raise UnsupportedError(f"This service does not support {name}. Leave it out.")
