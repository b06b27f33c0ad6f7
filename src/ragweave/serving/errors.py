"""Errors of the service and their HTTP responses: JSON in OpenAI's format, without internal details.

No message contains a path, a key or a traceback.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ragweave.errors import (
    ConfigurationError,
    GeneratorError,
    KnowledgeBaseError,
    QuestionError,
    RagweaveError,
)

_LOG = logging.getLogger(__name__)
_CALLER_ERRORS = (QuestionError, ConfigurationError)
"""Errors of the library that the caller caused; callers get their messages."""


class ServingError(RagweaveError):
    """The request failed. Each subclass has an HTTP status and an error code for programs.

    Args:
        message: What is wrong and what to do.
        headers: Headers of the response.
    """

    status: ClassVar[int]
    code: ClassVar[str]

    def __init_subclass__(cls, *, status: int, code: str) -> None:
        super().__init_subclass__()
        cls.status, cls.code = status, code

    def __init__(self, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers or {}


class UnauthorizedError(ServingError, status=401, code="invalid_api_key"):
    """The request has no key or a wrong one."""

    def __init__(self, message: str) -> None:
        super().__init__(message, {"WWW-Authenticate": "Bearer"})


class ForbiddenError(ServingError, status=403, code="forbidden"):
    """The service does not allow this request."""


class NotFoundError(ServingError, status=404, code="not_found"):
    """The requested object does not exist."""


class ConflictError(ServingError, status=409, code="conflict"):
    """The request conflicts with the content of the knowledge base."""


class TooLargeError(ServingError, status=413, code="request_too_large"):
    """The request body is too large."""


class LimitError(ServingError, status=422, code="limit_exceeded"):
    """The request exceeds a limit; the message names it."""


class UnsupportedError(ServingError, status=422, code="unsupported"):
    """The service does not support this option."""


class UnreadableDocumentError(ServingError, status=422, code="unreadable_document"):
    """A document yields no passages."""


class OverloadedError(ServingError, status=429, code="overloaded"):
    """The queue is too long to answer in time; retry after ``retry_after`` seconds."""

    def __init__(self, retry_after: int) -> None:
        message = f"Too many questions are waiting. Try again in {retry_after} s."
        super().__init__(message, {"Retry-After": str(retry_after)})


class ClientDisconnectedError(ServingError, status=499, code="client_closed_request"):
    """The client closed the connection."""


class UnavailableError(ServingError, status=503, code="unavailable"):
    """The service or the knowledge base is unavailable for now."""


class StoppingError(UnavailableError, status=503, code="unavailable"):
    """The service is stopping."""

    def __init__(self) -> None:
        super().__init__("The service is stopping. Try again when it has restarted.")


class DeadlineError(ServingError, status=504, code="deadline_exceeded"):
    """The request took too long."""


_REASONS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "The disk is full. Free some space"),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE),
        "Too many files are open. Raise the limit of open files (ulimit -n) and restart the service",
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "The service lacks a permission. Check the owner and the permissions of the knowledge base",
    ),
}


def unavailable(error: BaseException) -> UnavailableError | None:
    """The error for a knowledge base or machine that is unavailable; ``None`` for any other error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _REASONS:
            return UnavailableError(f"{_REASONS[cause.errno]}.")
        cause = cause.__cause__
    return (
        UnavailableError(without_folders(error))
        if isinstance(error, (KnowledgeBaseError, GeneratorError))
        else None
    )


def without_folders(error: BaseException) -> str:
    """The message of an error, with each path or address reduced to its last part."""
    return re.sub(r"[^\s'\"()]+", lambda word: word.group().rstrip("/").rpartition("/")[2] or "/", str(error))


def error_body(error: Exception) -> dict[str, Any]:
    """The JSON body for an error. Unexpected errors are logged and reported without details."""
    if isinstance(error, ServingError):
        return _body(error.status, str(error), error.code)
    if isinstance(error, HTTPException):
        return _body(error.status_code, str(error.detail), "http_error")
    if isinstance(error, RequestValidationError):
        return _body(422, _validation_message(error), "invalid_request")
    if isinstance(error, _CALLER_ERRORS):
        return _body(422, str(error), "invalid_request")
    reason = unavailable(error)
    if reason is not None:
        _LOG.warning("A request failed: %s", reason)
        return error_body(reason)
    # A traceback may contain paths and questions, so it is logged only on request.
    trace = error if os.environ.get("RAGWEAVE_DEBUG") else None
    _LOG.error("A request failed: %s.", type(error).__name__, exc_info=trace)
    return _body(500, "Internal error. The request may be valid; try again later.", "internal_error")


def error_response(error: Exception) -> Response:
    """The HTTP response for an error."""
    body = error_body(error)
    # ASCII, because a message may quote a lone surrogate from the request, which UTF-8 cannot encode.
    return Response(
        json.dumps(body, ensure_ascii=True),
        status_code=body["error"]["status"],
        headers=getattr(error, "headers", None),
        media_type="application/json",
    )


def install_handlers(app: FastAPI) -> None:
    """Make an application send all errors in this format."""

    async def handle(_: Request, error: Exception) -> Response:
        return error_response(error)

    for error_type in (ServingError, HTTPException, RequestValidationError, *_CALLER_ERRORS):
        app.add_exception_handler(error_type, handle)


def _validation_message(error: RequestValidationError) -> str:
    """Say which fields are invalid and why, without the values that were sent."""
    parts = []
    for detail in error.errors():
        # loc[0] is "body", "query" or "path"; the form of a body, such as "(agent)", may follow.
        field = ".".join(str(step) for step in detail["loc"][1:] if not str(step).startswith("("))
        named = field and detail["type"] != "json_invalid"
        parts.append(f"{field}: {detail['msg']}" if named else detail["msg"])
    return "; ".join(parts)


def _body(status: int, message: str, code: str) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code, "status": status}}
