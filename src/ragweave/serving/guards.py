"""What stands before every request: headers for browsers, hosts, keys, and the size of the body."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragweave.serving.errors import ForbiddenError, TooLargeError, UnauthorizedError
from ragweave.serving.failures import error_response
from ragweave.serving.keys import KeyRing

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
OPEN_PATHS = frozenset({"/", "/docs", "/healthz", "/readyz"})
OPEN_FOLDER = "/static/"


class SecurityHeaders:
    """Adds headers that keep a browser from doing more than the page needs.

    Args:
        app: What serves requests.
        shared: Whether pages of other origins may read responses.
    """

    def __init__(self, app: ASGIApp, *, shared: bool = False) -> None:
        self._app = app
        changed = {"Cross-Origin-Resource-Policy": "cross-origin"} if shared else {}
        self._headers = {**HEADERS, **changed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, adding)


class Guard:
    """Lets a request through that names a host of this service, and has a key where one is wanted.

    Args:
        app: What serves requests.
        rings: Keys of which any opens; everyone may come in where there is none.
        hosts: Names of this service; any where empty.
    """

    def __init__(self, app: ASGIApp, *, rings: tuple[KeyRing, ...], hosts: tuple[str, ...]) -> None:
        self._app = app
        self._rings = rings
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await error_response(refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ForbiddenError | UnauthorizedError | None:
        headers = Headers(scope=scope)
        if self._hosts and _host(headers.get("host", "")) not in self._hosts:
            return ForbiddenError("This service is not called by that name: use its own address.")
        if not self._rings or scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDER):
            return None
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            return None  # browsers ask without a key whether they may ask with one
        key = bearer(headers)
        if key is None:
            return UnauthorizedError("This service wants a key: send it as 'Authorization: Bearer KEY'.")
        opened = [ring.opens(key) for ring in self._rings]  # every ring, so that it takes as long for any key
        if not any(opened):
            return UnauthorizedError("The key is not one of this service.")
        return None


class BodyLimit:
    """Refuses requests with more bytes than a limit, before they are read.

    Args:
        app: What serves requests.
        most: The limit.
    """

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error = TooLargeError(f"The request has more than {self._most} bytes (limit body_bytes): send less.")
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._most:
            await error_response(error)(scope, receive, send)
            return
        taken = 0

        async def counting() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._most:
                raise HTTPException(
                    error.status, str(error)
                )  # the one kind that the reader of bodies lets through
            return message

        await self._app(scope, counting, send)


def bearer(headers: Headers) -> str | None:
    """The key of a request, if it has one."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else None


def _host(value: str) -> str | None:
    """The name in a Host header, without its port; of an IPv6 address what stands in the brackets."""
    try:
        return urlsplit(f"//{value}").hostname
    except ValueError:
        return None
