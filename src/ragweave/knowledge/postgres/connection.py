"""Connections to PostgreSQL: made when they are needed, and made again when they were lost."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from pgvector.psycopg import register_vector
from psycopg.conninfo import conninfo_to_dict

from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge.postgres.uri import PostgresUri

_T = TypeVar("_T")

Rows = psycopg.Connection[tuple[Any, ...]]
"""A connection whose rows are tuples."""

# A server that does not answer is given up within seconds, unless the URI says otherwise.
_DEFAULTS = {
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
}


def connect(uri: PostgresUri) -> Rows:
    """Open a connection that commits every statement by itself and knows vectors, where the database does.

    Raises:
        KnowledgeBaseError: The server cannot be reached, or lets nobody in.
        ConfigurationError: libpq cannot read the URI.
    """
    try:
        given = conninfo_to_dict(uri.conninfo)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(
            f"{uri.shown} is not a URI for PostgreSQL: {_reason(uri, error)}."
        ) from None  # whose text may hold the password
    settings = {"application_name": f"ragweave {os.getpid()}@{socket.gethostname()}", **_DEFAULTS}
    defaults: dict[str, Any] = {name: value for name, value in settings.items() if name not in given}
    with sentences(uri):
        # Nothing is prepared: a table may be replaced by one with vectors of another size.
        connection = psycopg.connect(uri.conninfo, autocommit=True, prepare_threshold=None, **defaults)
        knows_vectors(connection)
    return connection


def knows_vectors(connection: Rows) -> bool:
    """Teach a connection what vectors are; whether the extension is in the database."""
    try:
        register_vector(connection)
    except psycopg.ProgrammingError:
        return False
    return True


class Connection:
    """One connection for reading that several threads use in turn.

    Args:
        uri: The database.
    """

    def __init__(self, uri: PostgresUri) -> None:
        self._uri = uri
        self._connection: Rows | None = None
        self._lock = threading.RLock()

    def run(self, work: Callable[[Rows], _T]) -> _T:
        """Read something, once more where the connection turns out to be lost.

        Raises:
            KnowledgeBaseError: The server cannot be reached, or refuses.
        """
        with self._lock, sentences(self._uri):
            if self._connection is not None:
                try:
                    return work(self._connection)
                except (psycopg.OperationalError, psycopg.InterfaceError):
                    if not self._connection.closed:
                        raise
            self._connection = connect(self._uri)
            return work(self._connection)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                with suppress(psycopg.Error):
                    self._connection.close()
            self._connection = None


@contextmanager
def sentences(uri: PostgresUri) -> Iterator[None]:
    """Turn errors of PostgreSQL into ones that say what to do, without a password."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise KnowledgeBaseError(
            f"PostgreSQL at {uri.host} does not allow this in {uri.shown} ({_reason(uri, error)}): ask its "
            "administrator for the right, or for the extension ('CREATE EXTENSION vector')."
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise KnowledgeBaseError(
            f"PostgreSQL at {uri.host} cannot be used ({_reason(uri, error)}): check that it runs and that the URI "
            f"is right, then run the command again. It was {uri.shown}."
        ) from error
    except psycopg.Error as error:
        raise KnowledgeBaseError(
            f"PostgreSQL at {uri.host} could not do this in {uri.shown} ({_reason(uri, error)}): open the knowledge "
            "base again, which may have been built anew; if that does not help, build it again with --overwrite."
        ) from error


def _reason(uri: PostgresUri, error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error) or type(error).__name__
    return " ".join(uri.without_secrets(text).split()).rstrip(".")
