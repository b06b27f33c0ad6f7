"""A change of a knowledge base in PostgreSQL: one transaction, of which readers see nothing or all.

A knowledge base that is built anew is written into tables of its own, which take the place of the others at the end:
until then readers go on with those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge.analyzer import hashed
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.postgres.connection import Rows, knows_vectors
from ragweave.knowledge.postgres.protocol import Gone, IndexKind, State, Written
from ragweave.knowledge.postgres.tables import PASSAGE, Tables
from ragweave.knowledge.postgres.text import storable
from ragweave.knowledge.source_records import SourceRecord, Sources
from ragweave.knowledge.store import COLUMNS, NUMBERS
from ragweave.types import Passage

_TYPES = [*("int8" if name in NUMBERS else "text" for name in COLUMNS), "int8", "vector", "int8[]", "int4"]


class PostgresChange:
    """Satisfies `Change`.

    Args:
        connection: In the transaction.
        tables: What is in force.
        state: What is there.

    Attributes:
        committed: Whether the transaction is to be committed.
    """

    def __init__(self, connection: Rows, tables: Tables, state: State | None) -> None:
        self.state = state
        self.committed = False
        self._connection = connection
        self._tables = self._target = tables
        self._words, self._searched_by_words = 0, False
        # Rows up to this one were given before, and perhaps deleted since.
        self._last = 0 if state is None else self._last_row()

    def sources(self) -> Sources:
        """What the knowledge base was made from."""
        if self.state is None:
            return {}
        found = self._connection.execute(
            sql.SQL("SELECT key, source, sha256 FROM {}").format(self._tables.sources)
        )
        return {key: SourceRecord(source=source, sha256=sha256) for key, source, sha256 in found}

    def begin(self, *, dimension: int, words: bool, anew: bool) -> None:
        """Make ready for `insert`; see `Change.begin`."""
        self._searched_by_words = words
        if not anew:
            return
        self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        knows_vectors(self._connection)
        if self.state is None:
            self._refuse_others()
            self._connection.execute(self._tables.create_base())
        self._target = self._tables.new
        for statement in self._target.create(dimension, self._last + 1):
            self._connection.execute(statement)

    def known(self, hashes: NDArray[np.uint64], without: Collection[str]) -> NDArray[np.bool_]:
        """Which of M hashes are there, (M,); see `Change.known`."""
        statement = sql.SQL(
            "SELECT DISTINCT hash FROM {} WHERE hash = ANY(%s) AND row <= %s AND NOT source = ANY(%s)"
        )
        own = hashes.view(np.int64)
        values = [own.tolist(), self._last, list(without)]
        found = self._connection.execute(statement.format(self._tables.passages), values).fetchall()
        return np.isin(own, np.array([value for (value,) in found], dtype=np.int64))

    def document_among(self, names: Collection[str], without: Collection[str]) -> tuple[str, str] | None:
        """A document that is there and is among these; see `Change.document_among`."""
        statement = sql.SQL(
            "SELECT document_id, source FROM {} WHERE document_id = ANY(%s) AND row <= %s AND NOT source = ANY(%s) "
            "ORDER BY row LIMIT 1"
        ).format(self._tables.passages)
        values = [[storable(name) for name in names], self._last, list(without)]
        found = self._connection.execute(statement, values).fetchone()
        return None if found is None else (found[0], found[1])

    def check(self, passages: Sequence[Passage]) -> None:
        """Do nothing: texts may be of any length."""

    def insert(self, written: Written) -> None:
        """Write passages."""
        statement = sql.SQL("COPY {} ({}, hash, embedding, words, length) FROM STDIN (FORMAT BINARY)")
        with (
            self._connection.cursor() as cursor,
            cursor.copy(statement.format(self._target.passages, PASSAGE)) as copy,
        ):
            copy.set_types(_TYPES)
            for place, (passage, hash_) in enumerate(
                zip(written.passages, written.hashes.view(np.int64).tolist(), strict=True)
            ):
                words = (
                    None if written.words is None else hashed(written.words[place]).view(np.int64).tolist()
                )
                length = len(words or ())
                values = [getattr(passage, name) for name in COLUMNS]
                texts = [storable(value) if isinstance(value, str) else value for value in values]
                copy.write_row([*texts, hash_, written.vectors[place], words, length])
                self._words += length

    def discard(self, sources: Collection[str]) -> int:
        """Take back what was written of some sources; how many passages."""
        removed, words = self._remove(
            sql.SQL("row > %s AND source = ANY(%s)"), [self._last, list(sources)], self._target
        )
        self._words -= words
        return removed

    def counted(self, gone: Gone) -> tuple[int, int]:
        """How many passages and documents go; see `Change.counted`."""
        statement = sql.SQL(
            "WITH gone AS MATERIALIZED (SELECT row, document_id FROM {passages} WHERE {gone}), "
            "touched AS (SELECT document_id, count(*) AS going FROM gone GROUP BY document_id) "
            "SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM touched WHERE going = (SELECT count(*) "
            "FROM {passages} AS p WHERE p.document_id = touched.document_id AND p.row <= %(last)s))"
        ).format(passages=self._tables.passages, gone=_GONE)
        passages, documents = self._connection.execute(statement, self._going(gone)).fetchall()[0]
        return int(passages), int(documents)

    def commit(self, manifest: Manifest, *, index: IndexKind, gone: Gone, sources: Sources) -> None:
        """Write all that is left to write; what is left then is to commit the transaction."""
        words = self._words
        if self._target is self._tables:
            _, removed = self._remove(_GONE, self._going(gone), self._tables)
            words += self._all_words() - removed
        else:
            for statement in self._target.create_indexes(words=self._searched_by_words):
                self._connection.execute(statement)
        self._note_sources(sources, gone.forgotten)
        self._index(index, manifest)
        if self._target is not self._tables:
            self._replace()
        version = 1 if self.state is None else self.state.version + 1
        statement = sql.SQL(
            "INSERT INTO {} AS base (version, manifest, passages, words) VALUES (%s, %s, %s, %s) ON CONFLICT (here) "
            "DO UPDATE SET version = excluded.version, manifest = excluded.manifest, passages = excluded.passages, "
            "words = excluded.words"
        ).format(self._tables.base)
        self._connection.execute(statement, [version, manifest.to_json(), manifest.passages, words])
        self.committed = True

    def _refuse_others(self) -> None:
        for table in (self._tables.passages, self._tables.sources):
            if self._connection.execute("SELECT to_regclass(%s)", [table.as_string()]).fetchall()[0][0]:
                raise KnowledgeBaseError(
                    f"There is a table {table.as_string()} already that is no knowledge base: choose another name in "
                    "the URI (table=NAME)."
                )

    def _remove(
        self, condition: sql.Composable, values: Sequence[Any] | dict[str, Any], tables: Tables
    ) -> tuple[int, int]:
        """Delete passages; how many, and how many words they had."""
        statement = sql.SQL(
            "WITH gone AS (DELETE FROM {} WHERE {} RETURNING length) "
            "SELECT count(*), coalesce(sum(length), 0) FROM gone"
        ).format(tables.passages, condition)
        removed, words = self._connection.execute(statement, values).fetchall()[0]
        return int(removed), int(words)

    def _going(self, gone: Gone) -> dict[str, Any]:
        return {"sources": list(gone.sources), "rows": list(gone.rows), "last": self._last}

    def _note_sources(self, sources: Sources, forgotten: Collection[str]) -> None:
        table = self._target.sources
        self._connection.execute(
            sql.SQL("DELETE FROM {} WHERE digest = ANY(%s)").format(table), [list(map(_digest, forgotten))]
        )
        with self._connection.cursor() as cursor:
            cursor.executemany(
                sql.SQL(
                    "INSERT INTO {} (digest, key, source, sha256) VALUES (%s, %s, %s, %s) ON CONFLICT (digest) "
                    "DO UPDATE SET source = excluded.source, sha256 = excluded.sha256"
                ).format(table),
                [(_digest(key), key, record.source, record.sha256) for key, record in sources.items()],
            )

    def _index(self, index: IndexKind, manifest: Manifest) -> None:
        """Make or drop the graph, where it is not as it shall be."""
        name = self._target.passages.as_string()
        found = self._connection.execute(
            "SELECT n.nspname, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "JOIN pg_am a ON a.oid = c.relam JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE i.indrelid = %s::regclass AND a.amname = 'hnsw'",
            [name],
        ).fetchall()
        if index == "hnsw" and not found:
            self._connection.execute(self._target.create_graph(manifest.dimension, manifest.index.parameters))
        elif index == "flat":
            for graph in found:
                self._connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(*graph)))

    def _replace(self) -> None:
        """Put the new tables in the place of the others: from here on readers wait, for an instant."""
        for part, (old, new) in {
            "": (self._tables.passages, self._target.passages),
            "_sources": (self._tables.sources, self._target.sources),
        }.items():
            self._connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(old))
            self._connection.execute(
                sql.SQL("ALTER TABLE {} RENAME TO {}").format(new, sql.Identifier(self._tables.plain[part]))
            )

    def _last_row(self) -> int:
        statement = "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence(%s, 'row')::regclass), 0)"
        (last,) = self._connection.execute(statement, [self._tables.passages.as_string()]).fetchall()[0]
        return int(last)

    def _all_words(self) -> int:
        statement = sql.SQL("SELECT words FROM {}").format(self._tables.base)
        (words,) = self._connection.execute(statement).fetchall()[0]
        return int(words)


_GONE = sql.SQL("(source = ANY(%(sources)s) OR row = ANY(%(rows)s)) AND row <= %(last)s")


def _digest(key: str) -> str:
    """What a source is found by: paths may be longer than an index of PostgreSQL takes."""
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
