"""Disconnecting clients, and server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse

from ragweave.serving.batching import Event
from ragweave.serving.errors import ClientDisconnectedError, error_body

T = TypeVar("T")


def stream_schema(events: Mapping[str, Any]) -> dict[str, Any]:
    """The OpenAPI description of a stream, from the JSON schemas of its events' data, by event name.

    Server-sent events without a name are called ``message``.
    """
    items = [
        {
            "type": "object",
            "required": ["data"] if name == "message" else ["event", "data"],
            "properties": {
                "event": {"const": name},
                "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": schema},
            },
        }
        for name, schema in events.items()
    ]
    # OpenAPI 3.1, in which a stream is a string, has no itemSchema. Version 3.2 has.
    return {"content": {"text/event-stream": {"schema": {"type": "string"}, "itemSchema": {"oneOf": items}}}}


def reference(model: type) -> dict[str, str]:
    """The JSON schema of a model that another response of the service has."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Await work, and cancel it when the client disconnects.

    Raises:
        ClientDisconnectedError: The client disconnected.
    """
    task = asyncio.ensure_future(work)
    disconnect = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnectedError("The client disconnected.")
        return task.result()
    finally:
        task.cancel()
        disconnect.cancel()
        await asyncio.gather(task, disconnect, return_exceptions=True)


async def event_stream(
    request: Request,
    events: AsyncGenerator[Event],
    render: Callable[[Event], Iterable[str]],
    *,
    error_name: str | None = None,
) -> StreamingResponse:
    """Stream the events of a job.

    Args:
        request: The request.
        events: The events of the job.
        render: Returns the server-sent events for an event.
        error_name: Name of the server-sent event for an error.

    Raises:
        ServingError: The job failed before its first event, while there is still an HTTP status to send.
    """
    first = await while_connected(request, anext(events))

    async def body() -> AsyncIterator[str]:
        try:
            async with aclosing(events):
                for text in render(first):
                    yield text
                async for event in events:
                    for text in render(event):
                        yield text
        except Exception as error:
            yield sse(error_body(error), error_name)

    # X-Accel-Buffering: nginx would otherwise buffer the events.
    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    return StreamingResponse(body(), media_type="text/event-stream", headers=headers)


def sse(data: Any, name: str | None = None) -> str:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
