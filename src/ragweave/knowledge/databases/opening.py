"""The database that a URI names."""

from __future__ import annotations

from ragweave.errors import require_extra
from ragweave.knowledge.databases.protocol import Database
from ragweave.knowledge.databases.uri import PostgresUri, parse


def database_at(uri: str) -> Database:
    """The place in a database that a URI names; nothing is connected to before it is used.

    Raises:
        ConfigurationError: It is no such URI.
        MissingExtraError: The database's client is not installed.
    """
    parsed = parse(uri)
    if isinstance(parsed, PostgresUri):
        require_extra("psycopg", "pgvector")
        require_extra("pgvector", "pgvector")
        from ragweave.knowledge.databases.postgres.database import PostgresDatabase

        return PostgresDatabase(parsed)
    require_extra("pymilvus", "milvus")
    if parsed.file is not None:
        require_extra("milvus_lite", "milvus")
    from ragweave.knowledge.databases.milvus.database import MilvusDatabase

    return MilvusDatabase(parsed)
