"""Work that ends when the caller hangs up, and events for callers that stay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse

from ragweave.serving.errors import ClientGoneError

T = TypeVar("T")


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Do something for as long as the caller waits for it.

    Raises:
        ClientGoneError: The caller has gone; the work was cancelled.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError("The caller has hung up.")
        return task.result()
    finally:
        for own in (task, gone):
            own.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def event(data: Any, name: str | None = None) -> str:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def event_stream(events: AsyncIterator[str]) -> StreamingResponse:
    """A response of server-sent events that no proxy holds back."""
    return StreamingResponse(
        events,
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
    )


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
