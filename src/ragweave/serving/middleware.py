"""ASGI middleware: security headers, allowed hosts, API keys, body size, and unexpected errors."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragweave.serving.errors import (
    ForbiddenError,
    StoppingError,
    TooLargeError,
    UnauthorizedError,
    error_response,
)
from ragweave.serving.settings import KeyRing, Limits

STATIC = Path(__file__).parent / "static"
"""The pages with their scripts and styles."""

_SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_PUBLIC_PATHS = frozenset({"/", "/docs", "/healthz", "/readyz"})
_PUBLIC_FOLDER = "/static/"


class SecurityHeadersMiddleware:
    """Adds headers that restrict browsers; with ``cross_origin``, other origins may read responses."""

    def __init__(self, app: ASGIApp, *, cross_origin: bool = False) -> None:
        self._app = app
        overrides = {"Cross-Origin-Resource-Policy": "cross-origin"} if cross_origin else {}
        self._headers = {**_SECURITY_HEADERS, **overrides}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


class AccessMiddleware:
    """Rejects requests for another host, and requests without a valid key where one is required.

    Args:
        app: The wrapped application.
        rings: A key of any ring is valid. Without rings, no key is required.
        hosts: Allowed host names; all if empty.
    """

    def __init__(self, app: ASGIApp, *, rings: tuple[KeyRing, ...], hosts: tuple[str, ...]) -> None:
        self._app = app
        self._rings = rings
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        error = self._check(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
            return
        response: Response = error_response(error)
        asks_for_page = scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", "")
        if asks_for_page and isinstance(error, UnauthorizedError):  # links in a browser send no key
            response = FileResponse(STATIC / "key.html", error.status, headers=error.headers)
        await response(scope, receive, send)

    def _check(self, scope: Scope) -> ForbiddenError | UnauthorizedError | None:
        headers = Headers(scope=scope)
        if self._hosts and _host_name(headers.get("host", "")) not in self._hosts:
            return ForbiddenError("This host name is not allowed. Use the service's own address.")
        if not self._rings or scope["path"] in _PUBLIC_PATHS or scope["path"].startswith(_PUBLIC_FOLDER):
            return None
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            return None  # a CORS preflight request never carries a key
        key = bearer_token(headers)
        if key is None:
            return UnauthorizedError("This service requires a key. Send it as 'Authorization: Bearer KEY'.")
        # All rings are compared, so that timing does not reveal which one matched.
        accepted = [ring.accepts(key) for ring in self._rings]
        if not any(accepted):
            return UnauthorizedError("The key is not valid for this service.")
        return None


class BodyLimitMiddleware:
    """Rejects requests whose body exceeds a limit, without reading the rest."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = "upload_bytes" if scope["method"] == "PUT" else "body_bytes"
        most = getattr(self._limits, name)
        error = TooLargeError(f"The request body exceeds {most} bytes (limit {name}). Send less.")
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > most:
            await error_response(error)(scope, receive, send)
            return
        received = 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                # FastAPI turns every other exception of a body reader into a 400.
                raise HTTPException(error.status, str(error))
            return message

        await self._app(scope, counting_receive, send)


class ErrorMiddleware:
    """Answers unexpected errors with a plain 500, so that the server never logs a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        started = False

        async def watching_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watching_send)
        except (Exception, asyncio.CancelledError) as error:
            if scope["type"] != "http":
                raise
            # The server cancels running requests when its shutdown takes too long.
            response = error_response(error if isinstance(error, Exception) else StoppingError())
            if not started:
                await response(scope, receive, send)


def bearer_token(headers: Headers) -> str | None:
    """The key that a request carries, if any."""
    value = headers.get("authorization", "")
    with suppress(UnicodeDecodeError):  # curl and most clients send UTF-8, browsers Latin-1
        value = value.encode("latin-1").decode("utf-8")
    scheme, _, key = value.partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def _host_name(value: str) -> str | None:
    """The name in a Host header, without its port and without the brackets of an IPv6 address."""
    try:
        return urlsplit(f"//{value}").hostname
    except ValueError:
        return None
