"""Dependencies of the endpoints: the service, the admin key, and the documented errors."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ragweave.serving.errors import ForbiddenError, NotFoundError, UnauthorizedError
from ragweave.serving.middleware import bearer_token
from ragweave.serving.schemas import ErrorResponse
from ragweave.serving.service import Service

# The middleware checks the keys; this only documents them in the OpenAPI schema.
_BEARER = HTTPBearer(auto_error=False, description="A key of the service, if it requires keys.")

_ERRORS = {
    400: "The request is not valid HTTP or UTF-8.",
    401: "The key is missing or wrong.",
    403: "The service does not allow this.",
    404: "Not found.",
    409: "The request conflicts with the content of the knowledge base.",
    413: "The request body is too large.",
    422: "The request is invalid; the message says why.",
    429: "The service is overloaded; Retry-After says when to try again.",
    500: "Internal error.",
    503: "The service or the knowledge base is unavailable for now.",
    504: "The request was not answered in time.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of errors with these statuses."""
    return {status: {"model": ErrorResponse, "description": _ERRORS[status]} for status in statuses}


def get_service(
    request: Request,
    kb: Annotated[
        str | None, Query(description="Name of a knowledge base; the first one by default.")
    ] = None,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)] = None,
) -> Service:
    """The service of a knowledge base.

    Raises:
        NotFoundError: There is no knowledge base of this name.
    """
    services: dict[str, Service] = request.app.state.services
    if kb is not None and kb not in services:
        raise NotFoundError(f"There is no knowledge base {kb!r}. Choose one of: {', '.join(services)}.")
    return next(iter(services.values())) if kb is None else services[kb]


ServiceDependency = Annotated[Service, Depends(get_service)]


def get_service_for_changes(request: Request, service: ServiceDependency) -> Service:
    """The service, if the request may change documents.

    Raises:
        ForbiddenError: The service allows no changes.
        UnauthorizedError: The request has no valid admin key.
    """
    settings = service.settings
    if settings.changes == "everybody":
        return service
    ring = settings.admin_keys
    if ring is None:
        raise ForbiddenError(
            "This service does not allow changes of documents. Start it with --admin-key-file."
        )
    key = bearer_token(request.headers)
    if key is None or not ring.accepts(key):
        raise UnauthorizedError(
            "Changing documents requires an admin key. Send it as 'Authorization: Bearer KEY'."
        )
    return service


AdminServiceDependency = Annotated[Service, Depends(get_service_for_changes)]
