"""``POST /v1/chat/completions`` and ``GET /v1/models``, for OpenAI clients."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from ragweave.errors import QuestionError
from ragweave.provenance.answers import Answer
from ragweave.serving.batching import AnswerOptions, AnswerReady, Event, PassagesRetrieved, TextGenerated
from ragweave.serving.errors import NotFoundError, UnsupportedError
from ragweave.serving.openai_schemas import (
    Annotation,
    ChatChoice,
    ChatMessage,
    ChatRequest,
    ChatResponse,
    CompletionRequest,
    ModelCard,
    ModelList,
    UrlCitation,
    Usage,
)
from ragweave.serving.routes.dependencies import ServiceDependency, errors
from ragweave.serving.routes.document_page import page_url
from ragweave.serving.routes.streaming import event_stream, reference, sse, stream_schema, while_connected
from ragweave.serving.schemas import ErrorResponse, Message
from ragweave.serving.service import Service
from ragweave.types import ANSWER_FORMULATIONS, AnswerFormulation

router = APIRouter(prefix="/v1", tags=["OpenAI"])

MODEL = "ragweave"
# The fields of a message, all optional in a chunk.
_DELTA = ChatMessage.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
_CHUNK = {
    "type": "object",
    "description": "A part of an answer. After the last one, the data is [DONE].",
    "required": ["id", "object", "created", "model", "choices"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "chat.completion.chunk"},
        "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "delta", "finish_reason", "logprobs"],
                "properties": {
                    "index": {"type": "integer"},
                    "delta": {"type": "object", "properties": _DELTA},
                    "finish_reason": {"enum": ["stop", "length", None]},
                    "logprobs": {"type": "null"},
                },
            },
        },
        "usage": {"anyOf": [reference(Usage), {"type": "null"}]},
    },
}
_EVENTS = {"message": {"anyOf": [_CHUNK, reference(ErrorResponse)]}}


@router.get("/models", response_model=ModelList, responses=errors(401, 404, 422))
async def models(request: Request, service: ServiceDependency) -> ModelList:
    """The model with its default formulation and with each formulation, for each knowledge base."""
    return ModelList(data=[ModelCard(id=name, created=service.started) for name in _models(request)])


@router.get("/models/{name:path}", response_model=ModelCard, responses=errors(401, 404, 422))
async def model(name: str, request: Request, service: ServiceDependency) -> ModelCard:
    """One of the models."""
    find_model(request, service, name)
    return ModelCard(id=name, created=service.started)


@router.post(
    "/chat/completions",
    response_model=ChatResponse,
    responses={
        200: stream_schema(_EVENTS),
        **errors(400, 401, 404, 413, 422, 429, 503, 504),
    },
)
async def complete(
    request: Request, body: ChatRequest, service: ServiceDependency
) -> ChatResponse | StreamingResponse:
    """Answer the last user message.

    If the model can, it rewrites a follow-up as a question that stands alone, using the messages before it;
    `searched_for` holds it. If a message is longer than the encoder reads, its last question is searched for.
    System messages are ignored: ragweave itself instructs the generator. The annotations cite the passage
    behind each part of the answer. Decoding is deterministic: temperature, top_p and seed are ignored.
    """
    check_supported(
        body,
        {
            "n above 1": (body.n or 1) > 1,
            "logprobs": bool(body.logprobs),
            "response_format": (body.response_format or {}).get("type", "text") != "text",
        },
    )
    max_tokens = body.max_completion_tokens or body.max_tokens
    query = await read_query(request, service, body, body.messages, max_tokens)
    service = query.service
    completion = _Completion(body, query, str(request.base_url))
    if body.stream:
        return await event_stream(
            request, service.stream(query.question, query.options, query.turns), completion.chunks
        )
    (answer,) = await while_connected(request, service.answer([query.question], query.options, query.turns))
    return completion.response(answer)


@dataclass(frozen=True, slots=True)
class Query:
    """A chat request: the question, the turns before it, the options, and the service that answers."""

    service: Service
    question: str
    turns: list[tuple[str, str]]
    options: AnswerOptions
    prompt_tokens: int

    def is_cut(self, answer: Answer) -> bool:
        """Whether the answer ended at the maximum number of tokens."""
        # The token that ends an answer has no text.
        return len(answer.tokens) >= self.options.max_new_tokens and bool(answer.tokens[-1].text)


async def read_query(
    request: Request,
    service: Service,
    body: CompletionRequest,
    messages: Sequence[Message],
    max_tokens: int | None,
) -> Query:
    """Read the question from the last user message.

    Args:
        request: The request, whose body may name another knowledge base's model.
        service: The service of the knowledge base that the address names.
        body: The request.
        messages: The messages of the request.
        max_tokens: An upper bound of the answer's length, in tokens; the service may have a lower one.

    Raises:
        LimitError: There are too many messages, one is too long, or an option exceeds a limit.
        QuestionError: There is no question.
        NotFoundError: There is no such model.
        UnsupportedError: The last user message contains something that is not text.
    """
    service, formulation = find_model(request, service, body.model)
    limits = service.settings.limits
    service.check_limits(
        messages=len(messages), message_characters=max(len(message.words) for message in messages)
    )
    turns, message = _turns(messages)
    await service.check_where(body.where)
    options = service.options(
        n_docs=body.n_docs,
        num_beams=body.num_beams,
        max_new_tokens=max_tokens and min(max_tokens, limits.max_new_tokens),
        formulation=formulation,
        min_confidence=body.min_confidence,
        where=body.where,
    )
    question = await service.queries.run(service.engine.condense, message, limits.question_characters)
    service.check_questions([question])
    return Query(
        service, question, turns, options, await service.queries.run(service.engine.token_count, question)
    )


class _Completion:
    """The completion of one chat, as a response or as chunks."""

    def __init__(self, body: ChatRequest, query: Query, base_url: str) -> None:
        self._body = body
        self._query = query
        self._base_url = base_url
        self._id = f"chatcmpl-{uuid4().hex}"
        self._created = int(time.time())
        self._stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
        self._text = ""
        self._sent = 0

    def response(self, whole: Answer) -> ChatResponse:
        """The complete answer as one response."""
        answer = _until(whole, self._stops)
        annotations = [
            Annotation(url_citation=citation)
            for citation in citations(answer, self._base_url, self._query.service.name)
        ]
        message = ChatMessage(content=answer.answer, annotations=annotations, **judgement(answer))
        return ChatResponse(
            id=self._id,
            created=self._created,
            model=self._body.model,
            choices=[ChatChoice(message=message, finish_reason=self._finish_reason(whole))],
            usage=self._usage(answer),
        )

    def chunks(self, event: Event) -> list[str]:
        """The chunks of a stream for an event. The last ones carry the citations."""
        match event:
            case PassagesRetrieved():
                return [self._delta({"role": "assistant", "content": ""})]
            case TextGenerated(text):
                self._text += text
                return self._pieces(_safe_length(self._text, self._stops))
            case AnswerReady(whole):
                response = self.response(whole)
                message = response.choices[0].message.model_dump(exclude={"role", "content", "refusal"})
                self._text = _until(whole, self._stops).answer
                chunks = [
                    *self._pieces(len(self._text)),
                    self._delta(message),
                    self._delta({}, finish_reason=response.choices[0].finish_reason),
                ]
                if self._body.stream_options is not None and self._body.stream_options.include_usage:
                    chunks.append(self._chunk(choices=[], usage=response.usage.model_dump()))
                return [*chunks, sse("[DONE]")]

    def _pieces(self, end: int) -> list[str]:
        """The chunk of the text that can be sent now, if there is any."""
        piece, self._sent = self._text[self._sent : end], max(self._sent, end)
        return [self._delta({"content": piece})] if piece else []

    def _delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return self._chunk(choices=[choice])

    def _chunk(self, **fields: Any) -> str:
        head = {"id": self._id, "object": "chat.completion.chunk", "created": self._created}
        return sse({**head, "model": self._body.model, "usage": None, **fields})

    def _usage(self, answer: Answer) -> Usage:
        prompt, completion = self._query.prompt_tokens, len(answer.tokens)
        return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)

    def _finish_reason(self, whole: Answer) -> Literal["stop", "length"]:
        stopped = _until(whole, self._stops) is not whole
        return "length" if self._query.is_cut(whole) and not stopped else "stop"


def _until(answer: Answer, stops: Sequence[str]) -> Answer:
    """The answer up to the first of these texts."""
    end = min((at for stop in stops if (at := answer.answer.find(stop)) >= 0), default=None)
    if end is None:
        return answer
    tokens, start = [], 0
    for token in answer.tokens:
        if start < end:
            tokens.append(replace(token, text=token.text[: end - start]))
        start += len(token.text)
    return replace(answer, answer=answer.answer[:end], tokens=tuple(tokens))


def _safe_length(text: str, stops: Sequence[str]) -> int:
    """The length of a text up to the first of ``stops``, or up to an end that may be the beginning of one."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    begun = [size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])]
    return min([*ends, len(text) - max(begun, default=0)])


def citations(answer: Answer, base_url: str, kb: str) -> list[UrlCitation]:
    """One citation for each run of tokens that the same passage supports most."""
    ends = accumulate(len(token.text) for token in answer.tokens)
    tokens = [(token, end) for token, end in zip(answer.tokens, ends, strict=True) if token.text]
    found = []
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
            url=passage.source if is_page else base_url + page_url(passage.id, kb),
            passage_id=passage.id,
            place=passage.place,
            quote=answer.quote(i),
            posterior=sum(token.posteriors[i] for token, _ in run) / len(run),
        )
        found.append(citation)
    return found


def _turns(messages: Sequence[Message]) -> tuple[list[tuple[str, str]], str]:
    """The earlier questions with their answers, and the last user message."""
    turns: list[tuple[str, str]] = []
    last = None
    for message in messages:
        if message.role == "user":
            last = message
        elif message.role == "assistant" and last is not None:
            turns.append((last.words, message.words))
    if last is None:
        raise QuestionError("There is no user message. Ask a question.")
    if last.others:
        raise UnsupportedError(f"This service reads no {last.others[0]}. Send the question as text.")
    return turns, last.words


def judgement(answer: Answer) -> dict[str, Any]:
    """The fields of `Judgement` for an answer."""
    return {
        "confidence": answer.confidence,
        "answered": answer.answered,
        "best_guess": answer.best_guess,
        "searched_for": answer.question,
    }


def find_model(request: Request, service: Service, name: str) -> tuple[Service, AnswerFormulation | None]:
    """The service and the formulation of a model; ``None`` is the pipeline's formulation.

    Raises:
        NotFoundError: There is no model of this name.
    """
    models = _models(request)
    if name not in models:
        raise NotFoundError(f"There is no model {name!r}. Choose one of: {', '.join(models)}.")
    base, formulation = models[name]
    return request.app.state.services[base] if base else service, formulation


def _models(request: Request) -> dict[str, tuple[str, AnswerFormulation | None]]:
    """The names of the models, with the knowledge base and the formulation that they stand for."""
    bases = dict.fromkeys(["", *request.app.state.services])
    formulations: tuple[AnswerFormulation | None, ...] = (None, *ANSWER_FORMULATIONS)
    return {
        f"{MODEL}{f'/{base}' if base else ''}{f'-{formulation}' if formulation else ''}": (base, formulation)
        for base in bases
        for formulation in formulations
    }


def check_supported(body: CompletionRequest, others: dict[str, bool]) -> None:
    """Raise `UnsupportedError` if a request uses tools or another option that is not supported."""
    unsupported = {"tools": bool(body.tools) and body.tool_choice != "none", **others}
    for name, requested in unsupported.items():
        if requested:
            raise UnsupportedError(f"This service does not support {name}. Leave it out.")
