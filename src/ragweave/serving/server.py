"""The HTTP server: uvicorn with limits on connections, on the time of a request, and on repeated log lines."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ragweave.serving.service import Service
from ragweave.serving.settings import ServingSettings

_LOG = logging.getLogger(__name__)
_GRACE_SECONDS = 5
_KERNEL_QUEUE = 2048
_LOG_SECONDS, _LOG_LINES = 10.0, 5
_LOGGERS = (
    "asyncio",
    "uvicorn.error",
    *(f"ragweave.serving.{name}" for name in ("server", "errors", "engine")),
)
_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Server(uvicorn.Server):
    """A server that limits repeated log lines, and answers waiting questions when its shutdown begins."""

    def __init__(self, config: uvicorn.Config, services: Iterable[Service]) -> None:
        super().__init__(config)
        self._services = services

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the shutdown at the first signal; end the process at once if Ctrl-C follows."""
        if self.should_exit and sig == signal.SIGINT:
            # An exception would log running requests and wait for threads. Knowledge bases survive a kill.
            os.write(2, b"Stopped at once; running requests were cut off.\n")
            os._exit(128 + sig)
        super().handle_exit(sig, frame)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the process is told to stop."""
        repeats, loggers = _RepeatFilter(), [logging.getLogger(name) for name in _LOGGERS]
        for logger in loggers:
            logger.addFilter(repeats)
        try:
            await super().serve(sockets)
        finally:
            for logger in loggers:
                logger.removeFilter(repeats)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, with a longer queue in the kernel than the number of connections that asyncio accepts at once."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(_KERNEL_QUEUE)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new questions, finish the running requests, then stop."""
        for service in self._services:
            service.batcher.close()
        await super().shutdown(sockets)


def create_server(app: ASGIApp, settings: ServingSettings) -> Server:
    """Create a server whose shutdown waits for the longest time that a question may take."""
    descriptors = _descriptor_limit()
    max_connections = min(settings.max_connections, descriptors // 2)

    class Protocol(_BoundedProtocol):
        limit, seconds = max_connections, settings.request_seconds

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        # asyncio accepts this many connections before the first of them can be closed.
        backlog=min(_KERNEL_QUEUE, descriptors // 16),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.batching.deadline) + _GRACE_SECONDS,
        timeout_keep_alive=5,
        lifespan="on",
    )
    # The MCP application finishes its questions when it ends.
    return Server(config, app.state.services.values() if isinstance(app, FastAPI) else ())


class _BoundedProtocol(H11Protocol):
    """A connection that is closed when its client takes too long to send a request or to read the response.

    With too many connections, the one that has kept the server waiting longest is closed. Silent clients therefore
    cannot keep out a client that sends its request at once.
    """

    limit: int
    seconds: float
    _phase: Any = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > self.limit:
            others = (one for one in self.connections if isinstance(one, _BoundedProtocol))
            timers = {one: one._timer for one in others if one._timer is not None}
            slowest = min(timers, key=lambda one: timers[one].when())
            slowest._stop_watching()
            self.connections.discard(slowest)
            slowest.transport.abort()
            _LOG.warning("More than %d connections are open: the slowest client's was closed.", self.limit)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch()

    def shutdown(self) -> None:
        super().shutdown()
        if self._timer is not None:  # it may finish sending its request, but only within seconds
            self._start_watching(min(self.seconds, _GRACE_SECONDS))

    def _watch(self) -> None:
        """Start the timer when the client has to act; it runs until the client has sent, or read, everything."""
        phase = "response" if self.flow.write_paused else self.conn.their_state
        if phase == self._phase:
            return
        self._phase = phase
        self._stop_watching()
        if phase in ("response", h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing():
            self._start_watching(self.seconds)

    def _start_watching(self, seconds: float) -> None:
        self._stop_watching()
        self._timer = self.loop.call_later(seconds, self._expire)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        if self._phase is h11.SEND_BODY and not self.cycle.response_started:
            self.transport.write(_TIMED_OUT)
        self.transport.abort()


class _RepeatFilter(logging.Filter):
    """Limits log records from the same line of code per period, so that no client can fill the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place, now = (record.pathname, record.lineno), time.monotonic()
        began, count = self._seen.get(place, (-math.inf, 0))
        if now - began > _LOG_SECONDS:
            if count > _LOG_LINES:
                record.msg = f"{record.getMessage()} ({count - _LOG_LINES} similar messages were suppressed.)"
                record.args = ()
            began, count = now, 0
        self._seen[place] = began, count + 1
        return count < _LOG_LINES


def _descriptor_limit() -> int:
    """The number of descriptors that this process may open."""
    try:
        import resource  # not on Windows
    except ImportError:
        return 2**15
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**15 if soft == resource.RLIM_INFINITY else soft
