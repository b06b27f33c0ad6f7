"""The database that a URI names."""

from __future__ import annotations

from ragweave.errors import require_extra
from ragweave.knowledge.postgres.protocol import Database
from ragweave.knowledge.postgres.uri import parse


def database_at(uri: str) -> Database:
    """The place in a database that a URI names; nothing is connected to before it is used.

    Raises:
        ConfigurationError: It is no such URI.
        MissingExtraError: The database's client is not installed.
    """
    require_extra("psycopg", "pgvector")
    require_extra("pgvector", "pgvector")
    from ragweave.knowledge.postgres.database import PostgresDatabase

    return PostgresDatabase(parse(uri))
