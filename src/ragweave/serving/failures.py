"""Errors as responses: always JSON, in the shape that OpenAI's clients read, and without what is inside."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragweave.errors import ConfigurationError, QuestionError
from ragweave.serving.errors import ServingError

if TYPE_CHECKING:
    from starlette.types import ExceptionHandler

_LOG = logging.getLogger(__name__)
_SPOKEN = (QuestionError, ConfigurationError)
"""Errors of the library that a caller has made, and whose sentences are for the caller."""


def error_body(error: Exception) -> dict[str, Any]:
    """What a caller is told of an error."""
    if isinstance(error, ServingError):
        return _body(error.status, str(error), error.code)
    if isinstance(error, _SPOKEN):
        return _body(422, str(error), "invalid_request")
    _LOG.error("A request failed: %s.", type(error).__name__, exc_info=_traced(error))
    return _body(
        500, "Something went wrong here; the request may be right. Try it again later.", "internal_error"
    )


def error_response(error: Exception) -> Response:
    """An error as a response."""
    body = error_body(error)
    headers = error.headers if isinstance(error, ServingError) else {}
    return _response(body, headers)


def install_handlers(app: FastAPI) -> None:
    """Let an application answer with errors in this shape."""

    async def failed(_: Request, error: Exception) -> Response:
        return error_response(error)

    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return _response(_body(422, _sentence(error), "invalid_request"), {})

    async def http(_: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        return _response(_body(error.status_code, str(error.detail), "http_error"), headers)

    for own in (ServingError, *_SPOKEN):
        app.add_exception_handler(own, failed)
    # Starlette's types know no handler of one kind of exception.
    app.add_exception_handler(RequestValidationError, cast("ExceptionHandler", invalid))
    app.add_exception_handler(HTTPException, cast("ExceptionHandler", http))


class LastResort:
    """Answers with a plain 500 where everything else failed, so that no server shows a trace.

    Args:
        app: What serves requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if scope["type"] != "http":
                raise
            response = error_response(error)
            if not begun:
                await response(scope, receive, send)


def _sentence(error: RequestValidationError) -> str:
    """What is wrong with a request: where, and what was expected; never what was sent."""
    parts = []
    for own in error.errors():
        where = ".".join(str(step) for step in own["loc"][1:])  # the first is the part of the request
        parts.append(f"{where}: {own['msg']}" if where and own["type"] != "json_invalid" else own["msg"])
    return "; ".join(parts)


def _body(status: int, message: str, code: str) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code, "status": status}}


def _response(body: dict[str, Any], headers: dict[str, str]) -> Response:
    # ASCII: a message may repeat half a character that the request had in it.
    return Response(
        json.dumps(body, ensure_ascii=True),
        status_code=body["error"]["status"],
        headers=headers,
        media_type="application/json",
    )


def _traced(error: Exception) -> Exception | None:
    """The error with its trace, for those who asked to see traces in the log."""
    return error if os.environ.get("RAGWEAVE_DEBUG") else None
