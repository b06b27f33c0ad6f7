"""Connections to PostgreSQL that open when they are needed, and again after they were lost."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge.layout import PostgresUri

_T = TypeVar("_T")

Client = psycopg.Connection[tuple[Any, ...]]  # a connection whose rows are tuples

# A server that does not answer fails within seconds, unless the URI says otherwise.
_DEFAULTS = {
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
}


def connect(uri: PostgresUri) -> Client:
    """Open a connection that commits every statement."""
    try:
        options = conninfo_to_dict(uri.conninfo)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(
            f"{uri} is not a URI for PostgreSQL: {_reason(uri, error)}. Correct the URI."
        ) from None  # libpq's text may contain the password
    settings = {"application_name": f"ragweave {os.getpid()}@{socket.gethostname()}", **_DEFAULTS}
    defaults: dict[str, Any] = {name: value for name, value in settings.items() if name not in options}
    with readable_errors(uri):
        # No prepared statements: a rebuild may replace a table by one with vectors of another size.
        client = psycopg.connect(uri.conninfo, autocommit=True, prepare_threshold=None, **defaults)
        with suppress(psycopg.ProgrammingError):  # the database does not have the extension yet
            register_vector(client)
    return client


class Connection:
    """One connection for reading that threads use in turn."""

    def __init__(self, uri: PostgresUri) -> None:
        self.uri = uri
        self._client: Client | None = None
        self._lock = threading.RLock()

    def run(self, work: Callable[[Client], _T]) -> _T:
        """Read something, a second time if the connection turns out to be lost."""
        with self._lock, readable_errors(self.uri):
            if self._client is not None:
                try:
                    return work(self._client)
                except (psycopg.OperationalError, psycopg.InterfaceError):
                    if not self._client.closed:
                        raise
            self._client = connect(self.uri)
            return work(self._client)

    def fetch(
        self, statement: sql.Composed, values: Any = None, *, binary: bool = False
    ) -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        return self.run(lambda client: client.execute(statement, values, binary=binary).fetchall())

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with self._lock, suppress(psycopg.Error):
            if self._client is not None:
                self._client.close()
            self._client = None


@contextmanager
def readable_errors(uri: PostgresUri) -> Iterator[None]:
    """Turn PostgreSQL's errors into errors of ragweave, which say what to do and show no password."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise KnowledgeBaseError(
            f"PostgreSQL at {uri.host} does not allow this in {uri} ({_reason(uri, error)}). Ask its "
            "administrator for the permission, or for the extension ('CREATE EXTENSION vector')."
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise KnowledgeBaseError(
            f"PostgreSQL at {uri.host} cannot be used ({_reason(uri, error)}). Check that it runs and that the URI "
            f"{uri} is right, then run the command again."
        ) from error
    except psycopg.Error as error:
        raise KnowledgeBaseError(
            f"PostgreSQL at {uri.host} could not do this in {uri} ({_reason(uri, error)}). Open the knowledge "
            "base again, since it may have been rebuilt. If that does not help, build it again with --overwrite."
        ) from error


def _reason(uri: PostgresUri, error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error) or type(error).__name__
    return " ".join(uri.without_secrets(text).split()).rstrip(".")
