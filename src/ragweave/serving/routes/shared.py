"""What endpoints share: the service, keys in the OpenAPI schema, and how errors are documented."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from ragweave.serving.errors import ForbiddenError, UnauthorizedError
from ragweave.serving.guards import bearer
from ragweave.serving.service import Service

_BEARER = HTTPBearer(auto_error=False, description="A key of the service, where it was started with keys.")


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: None
    code: str
    status: int


class ErrorResponse(BaseModel):
    """Every error, whatever its status."""

    error: ErrorDetail


def service_of(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)] = None
) -> Service:
    """The service that an application was made for."""
    service: Service = request.app.state.service
    return service


Given = Annotated[Service, Depends(service_of)]


def administered(request: Request, service: Given) -> Service:
    """The service, for those who may change its documents.

    Raises:
        ForbiddenError: No one may.
        UnauthorizedError: This caller may not.
    """
    ring = service.settings.admin_keys
    if ring is None:
        raise ForbiddenError("Documents cannot be changed here: the service has no key for that.")
    key = bearer(request.headers)
    if key is None or not ring.opens(key):
        raise UnauthorizedError("Changing documents wants a key for that: 'Authorization: Bearer KEY'.")
    return service


Administered = Annotated[Service, Depends(administered)]

_ERRORS = {
    400: "The request is no HTTP or no UTF-8.",
    401: "There is no key, or a wrong one.",
    403: "The service does not do this.",
    404: "There is no such thing.",
    409: "What is there does not allow it.",
    413: "The request has too many bytes.",
    422: "The request asks for something that is not allowed; the message says what.",
    429: "Too much is waiting; Retry-After says when to come again.",
    500: "A fault of the service.",
    503: "Something that is needed does not work at the moment.",
    504: "The request was not answered in time.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses of these statuses, as the OpenAPI schema describes them."""
    return {status: {"model": ErrorResponse, "description": _ERRORS[status]} for status in statuses}
