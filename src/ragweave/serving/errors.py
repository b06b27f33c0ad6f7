"""What a service refuses or fails to do, each with its status and a sentence that says what to do.

No message has a path, a key or a trace in it.
"""

from __future__ import annotations

from typing import ClassVar

from ragweave.errors import RagweaveError


class ServingError(RagweaveError):
    """A request that is not served.

    Attributes:
        status: HTTP status.
        code: A word for programs.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response."""
        return {}


class UnauthorizedError(ServingError):
    """The request has no key, or a wrong one."""

    status = 401
    code = "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response."""
        return {"WWW-Authenticate": "Bearer"}


class ForbiddenError(ServingError):
    """The service does not do this for anyone."""

    status = 403
    code = "forbidden"


class NotThereError(ServingError):
    """There is no such thing."""

    status = 404
    code = "not_found"


class ConflictError(ServingError):
    """What is there does not allow it."""

    status = 409
    code = "conflict"


class TooLargeError(ServingError):
    """The request has too many bytes."""

    status = 413
    code = "request_too_large"


class LimitError(ServingError):
    """The request asks for more than a limit allows; the message names it."""

    status = 422
    code = "limit_exceeded"


class UnsupportedError(ServingError):
    """The request asks for something that this service cannot do."""

    status = 422
    code = "unsupported"


class UnreadableError(ServingError):
    """A document cannot be made passages of."""

    status = 422
    code = "unreadable_document"


class OverloadedError(ServingError):
    """Too many wait already.

    Args:
        retry_after: After how many seconds it is worth trying again.
    """

    status = 429
    code = "overloaded"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many questions are waiting: try again in {retry_after} s.")
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response."""
        return {"Retry-After": str(self.retry_after)}


class ClientGoneError(ServingError):
    """Nobody waits for the response any more."""

    status = 499
    code = "client_closed_request"


class UnavailableError(ServingError):
    """Something that is needed does not work at the moment."""

    status = 503
    code = "unavailable"


class DeadlineError(ServingError):
    """The request was not answered in time."""

    status = 504
    code = "deadline_exceeded"
