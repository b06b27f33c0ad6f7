"""``POST /v1/responses``, for OpenAI clients."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from ragweave.errors import QuestionError
from ragweave.provenance.answers import Answer
from ragweave.serving.batching import AnswerReady, Event, PassagesRetrieved, TextGenerated
from ragweave.serving.openai_schemas import (
    FlatCitation,
    OutputMessage,
    OutputText,
    ResponsesRequest,
    ResponsesResponse,
    ResponseUsage,
)
from ragweave.serving.routes.chat import Query, check_supported, citations, judgement, read_query
from ragweave.serving.routes.dependencies import ServiceDependency, errors
from ragweave.serving.routes.streaming import event_stream, reference, sse, stream_schema, while_connected
from ragweave.serving.schemas import ErrorResponse, Message

router = APIRouter(prefix="/v1", tags=["OpenAI"])


def _event_schema(**fields: Any) -> dict[str, Any]:
    fields = {"type": {"type": "string"}, "sequence_number": {"type": "integer"}, **fields}
    return {"type": "object", "required": list(fields), "properties": fields}


_WHOLE = _event_schema(response=reference(ResponsesResponse))
_ITEM = _event_schema(output_index={"type": "integer"}, item={"type": "object"})
_PLACE: dict[str, Any] = {
    "item_id": {"type": "string"},
    "output_index": {"type": "integer"},
    "content_index": {"type": "integer"},
}
_PART = _event_schema(**_PLACE, part=reference(OutputText))
_CITED = {"annotation_index": {"type": "integer"}, "annotation": reference(FlatCitation)}
_EVENTS = {
    "response.created": _WHOLE,
    "response.in_progress": _WHOLE,
    "response.output_item.added": _ITEM,
    "response.content_part.added": _PART,
    "response.output_text.delta": _event_schema(**_PLACE, delta={"type": "string"}),
    "response.output_text.annotation.added": _event_schema(**_PLACE, **_CITED),
    "response.output_text.done": _event_schema(**_PLACE, text={"type": "string"}),
    "response.content_part.done": _PART,
    "response.output_item.done": _ITEM,
    "response.completed": _WHOLE,
    "response.incomplete": _WHOLE,
    "error": reference(ErrorResponse),
}


@router.post(
    "/responses",
    response_model=ResponsesResponse,
    responses={200: stream_schema(_EVENTS), **errors(400, 401, 404, 413, 422, 429, 503, 504)},
)
async def respond(
    request: Request, body: ResponsesRequest, service: ServiceDependency
) -> ResponsesResponse | StreamingResponse:
    """Answer the last user message of the input, as chats do. Nothing is stored."""
    check_supported(
        body,
        {
            "text.format": (body.text or {}).get("format", {}).get("type", "text") != "text",
            "previous_response_id": body.previous_response_id is not None,
            "conversation": body.conversation is not None,
            "background": bool(body.background),
        },
    )
    if isinstance(body.input, str):
        messages = [Message(role="user", content=body.input)]
    else:
        messages = [item for item in body.input if item.role is not None]
    if not messages:
        raise QuestionError("There is no user message. Ask a question.")
    query = await read_query(request, service, body, messages, body.max_output_tokens)
    service = query.service
    response = _Response(body.model, query, str(request.base_url))
    if body.stream:
        return await event_stream(
            request,
            service.stream(query.question, query.options, query.turns),
            response.events,
            error_name="error",
        )
    (answer,) = await while_connected(request, service.answer([query.question], query.options, query.turns))
    return response.completed(answer)


class _Response:
    """One response, whole or as the events of a stream."""

    def __init__(self, model: str, query: Query, base_url: str) -> None:
        self._query = query
        self._base_url = base_url
        self._item = f"msg_{uuid4().hex}"
        self._begun = ResponsesResponse(
            id=f"resp_{uuid4().hex}", created_at=int(time.time()), model=model, status="in_progress"
        )
        self._events = 0

    def completed(self, answer: Answer) -> ResponsesResponse:
        """The response with the answer."""
        cited = [
            FlatCitation(**dict(citation))
            for citation in citations(answer, self._base_url, self._query.service.name)
        ]
        cut = self._query.is_cut(answer)
        message = OutputMessage(
            id=self._item,
            status="incomplete" if cut else "completed",
            content=[OutputText(text=answer.answer, annotations=cited)],
            **judgement(answer),
        )
        asked, said = self._query.prompt_tokens, len(answer.tokens)
        return self._begun.model_copy(
            update={
                "status": message.status,
                "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
                "output": [message],
                "usage": ResponseUsage(input_tokens=asked, output_tokens=said, total_tokens=asked + said),
            }
        )

    def events(self, event: Event) -> list[str]:
        """The events of a stream for an event of the service."""
        match event:
            case PassagesRetrieved():
                begun = self._begun.model_dump()
                item = {"id": self._item, "type": "message", "role": "assistant", "status": "in_progress"}
                return [
                    self._event("response.created", response=begun),
                    self._event("response.in_progress", response=begun),
                    self._event("response.output_item.added", output_index=0, item={**item, "content": []}),
                    self._part("content_part.added", part=OutputText(text="", annotations=[]).model_dump()),
                ]
            case TextGenerated(text):
                return [self._part("output_text.delta", delta=text, logprobs=[])]
            case AnswerReady(answer):
                response = self.completed(answer)
                (message,) = response.output
                part = message.content[0].model_dump()
                added = "output_text.annotation.added"
                cited = enumerate(part["annotations"])
                return [
                    *(self._part(added, annotation_index=i, annotation=one) for i, one in cited),
                    self._part("output_text.done", text=answer.answer, logprobs=[]),
                    self._part("content_part.done", part=part),
                    self._event("response.output_item.done", output_index=0, item=message.model_dump()),
                    self._event(f"response.{response.status}", response=response.model_dump()),
                ]

    def _part(self, name: str, **fields: Any) -> str:
        return self._event(f"response.{name}", item_id=self._item, output_index=0, content_index=0, **fields)

    def _event(self, name: str, **fields: Any) -> str:
        self._events += 1
        return sse({"type": name, "sequence_number": self._events - 1, **fields}, name)
