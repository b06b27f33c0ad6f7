"""A knowledge base in PostgreSQL: reading it.

Notation used for tensor shapes: B questions, K passages per question, D vector size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.postgres.connection import Connection, Rows, connect, sentences
from ragweave.knowledge.postgres.index_kinds import current
from ragweave.knowledge.postgres.protocol import Record, State
from ragweave.knowledge.postgres.tables import MOST_HALF, PASSAGE, Tables
from ragweave.knowledge.postgres.text import storable
from ragweave.knowledge.postgres.transaction import PostgresChange
from ragweave.knowledge.postgres.uri import PostgresUri
from ragweave.knowledge.postgres.word_scores import PostgresWordScores
from ragweave.types import Passage

_EF_SEARCH, _MOST_EF_SEARCH = 100, 1000


class PostgresDatabase:
    """Satisfies `Database` with tables of PostgreSQL; several threads may use it, one at a time.

    Args:
        uri: Where they are.
    """

    most_indexed = MOST_HALF

    def __init__(self, uri: PostgresUri) -> None:
        self.place = uri.shown
        self._uri = uri
        self._tables = Tables(uri.table)
        self._connection = Connection(uri)
        self._known: State | None = None

    def state(self) -> State | None:
        """What is there; ``None`` for nothing."""
        self._known = self._connection.run(
            lambda connection: read_state(connection, self._tables, self.place)
        )
        return self._known

    def search(self, questions: NDArray[np.float32], n: int) -> list[list[tuple[float, Record]]]:
        """For each of B questions, at most K inner products and passages, best first."""
        known = self._known or self.state()
        if known is None:
            raise KnowledgeBaseError(f"The knowledge base at {self.place} is gone: build it again.")
        manifest = known.manifest
        statement = self._tables.nearest(current(manifest), manifest.dimension)
        ef = max(manifest.index.parameters.get("efSearch", _EF_SEARCH), n)

        def work(connection: Rows) -> list[list[tuple[Any, ...]]]:
            # All in one trip. A graph is searched on until there are enough that were not deleted.
            with connection.pipeline():
                connection.execute(
                    "SELECT set_config('hnsw.ef_search', %s, false), set_config('jit', 'off', false), "
                    "set_config('hnsw.iterative_scan', 'strict_order', false)",
                    [str(min(ef, _MOST_EF_SEARCH))],
                )
                cursors = [
                    connection.cursor(binary=True).execute(statement, {"vector": question, "n": n})
                    for question in questions
                ]
                return [cursor.fetchall() for cursor in cursors]

        found = [
            [(float(score), _record(others)) for score, *others in rows]
            for rows in self._connection.run(work)
        ]
        return [sorted(hits, key=lambda hit: (-hit[0], hit[1].row)) for hits in found]

    def fetch(self, rows: Sequence[int]) -> list[Record]:
        """Look distinct rows up; those that are not there are left out."""
        statement = sql.SQL("SELECT row, embedding, {} FROM {} WHERE row = ANY(%s)").format(
            PASSAGE, self._tables.passages
        )
        found = self._connection.run(
            lambda connection: connection.cursor(binary=True).execute(statement, [list(rows)]).fetchall()
        )
        return [_record(row) for row in found]

    def rows_with(self, column: Literal["id", "document_id"], value: str) -> list[int]:
        """The rows that have a value in a column, rising."""
        statement = sql.SQL("SELECT row FROM {} WHERE {} = %s ORDER BY row").format(
            self._tables.passages, sql.Identifier(column)
        )
        found = self._connection.run(
            lambda connection: connection.execute(statement, [storable(value)]).fetchall()
        )
        return [row for (row,) in found]

    def words_asked(self, words: Sequence[str], *, k1: float, b: float) -> PostgresWordScores:
        """Score passages by BM25 for the words of a question."""
        return PostgresWordScores(self._connection, self._tables, words, k1=k1, b=b)

    def bytes(self) -> int | None:
        """How much room it takes, with its indexes."""
        statement = sql.SQL("SELECT {}").format(
            sql.SQL(" + ").join(
                sql.SQL("pg_total_relation_size({}::regclass)").format(sql.Literal(table.as_string()))
                for table in (self._tables.passages, self._tables.sources, self._tables.base)
            )
        )
        (size,) = self._connection.run(lambda connection: connection.execute(statement).fetchall())[0]
        return int(size)

    @contextmanager
    def changing(self) -> Iterator[PostgresChange]:
        """Be the one writer, in one transaction, which is rolled back unless it is committed.

        Raises:
            KnowledgeBaseError: Another process is, or the server cannot be reached or fails.
        """
        with sentences(self._uri):
            connection = connect(self._uri)
            try:
                with connection.transaction():
                    _be_the_writer(connection, self.place, ".".join(self._uri.table))
                    change = PostgresChange(
                        connection, self._tables, read_state(connection, self._tables, self.place)
                    )
                    yield change
                    if not change.committed:
                        raise psycopg.Rollback
            finally:
                connection.close()

    def tidy(self) -> None:
        """Give back the room of what was deleted, and count anew what is there."""
        statement = sql.SQL("VACUUM (ANALYZE) {}").format(self._tables.passages)
        self._connection.run(lambda connection: connection.execute(statement))

    def close(self) -> None:
        """Close the connection; the next use makes another."""
        self._connection.close()


def read_state(connection: Rows, tables: Tables, place: str) -> State | None:
    """What is there; ``None`` for nothing."""
    name = tables.base.as_string(connection)
    (there,) = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchall()[0]
    if not there:
        return None
    found = connection.execute(sql.SQL("SELECT version, manifest FROM {}").format(tables.base)).fetchone()
    return None if found is None else State(int(found[0]), Manifest.parse(found[1], place))


def _record(values: Sequence[Any]) -> Record:
    row, vector, *passage = values
    return Record(int(row), Passage(*passage), vector.to_numpy() if hasattr(vector, "to_numpy") else vector)


def _be_the_writer(connection: Rows, place: str, table: str) -> None:
    """Take the lock of a table, which goes with the transaction, however that ends.

    Raises:
        KnowledgeBaseError: Another writer holds it, who is named.
    """
    key = "SELECT hashtextextended('ragweave ' || %s, 0)"
    (number,) = connection.execute(key, [table]).fetchall()[0]
    (free,) = connection.execute("SELECT pg_try_advisory_xact_lock(%s)", [number]).fetchall()[0]
    if free:
        return
    owner = connection.execute(
        "SELECT application_name, to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') "
        "FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted "
        "AND classid = ((%(key)s >> 32) & 4294967295)::oid AND objid = (%(key)s & 4294967295)::oid",
        {"key": number},
    ).fetchone()
    who = "it has not said who it is" if owner is None else f"{owner[0]}, since {owner[1]} UTC"
    raise KnowledgeBaseError(f"Another process is changing {place} ({who}): try again when it has finished.")
