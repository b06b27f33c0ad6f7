"""One change of a knowledge base in PostgreSQL: one transaction, of which readers see all or nothing.

A rebuild writes tables of its own, which replace the others at the end; readers use the others until then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg import sql

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge.bm25 import hashed
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.postgres.connection import Client, connect, readable_errors
from ragweave.knowledge.postgres.reader import State, read_state, rows_of
from ragweave.knowledge.postgres.tables import PASSAGE, IndexKind, Tables, storable
from ragweave.knowledge.postgres.uri import PostgresUri
from ragweave.knowledge.source_records import SourceRecord, Sources
from ragweave.knowledge.store import COLUMNS, NUMBERS
from ragweave.types import Passage

_TYPES = [*("int8" if name in NUMBERS else "text" for name in COLUMNS), "int8", "vector", "int8[]", "int4"]
_DELETED = sql.SQL("(source = ANY(%(sources)s) OR row = ANY(%(rows)s)) AND row <= %(last)s")


@dataclass(frozen=True, slots=True)
class Deletions:
    """What a change deletes.

    Attributes:
        sources: Sources whose passages from before the change are deleted.
        rows: Further rows.
        forgotten: Keys of sources that are forgotten, so that they can be added again.
    """

    sources: Collection[str] = ()
    rows: Collection[int] = ()
    forgotten: Collection[str] = ()


@contextmanager
def write_transaction(uri: PostgresUri) -> Iterator[WriteTransaction]:
    """Start a change. It is rolled back unless `WriteTransaction.commit` was called.

    Raises:
        KnowledgeBaseError: Another process is changing the knowledge base, or the server cannot be reached or fails.
    """
    with readable_errors(uri):
        client = connect(uri)
        try:
            # In a transaction of its own, as readers wait for its end.
            state = read_state(client, uri)
            if state is not None and state.manifest.format_version < 5:
                client.execute(Tables(uri.table).add_columns())
            with client.transaction():
                _lock(client, uri)
                transaction = WriteTransaction(client, uri)
                yield transaction
                if not transaction.committed:
                    raise psycopg.Rollback
        finally:
            client.close()


def _lock(client: Client, uri: PostgresUri) -> None:
    """Take the writer's lock, which the server releases with the transaction, however that ends."""
    key = "SELECT hashtextextended('ragweave ' || %s, 0)"
    ((number,),) = client.execute(key, [".".join(uri.table)]).fetchall()
    ((free,),) = client.execute("SELECT pg_try_advisory_xact_lock(%s)", [number]).fetchall()
    if free:
        return
    owner = client.execute(
        "SELECT application_name, to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') "
        "FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted "
        "AND classid = ((%(key)s >> 32) & 4294967295)::oid AND objid = (%(key)s & 4294967295)::oid",
        {"key": number},
    ).fetchone()
    who = "unknown" if owner is None else f"{owner[0]}, since {owner[1]} UTC"
    raise KnowledgeBaseError(f"Another process is changing {uri} ({who}). Try again when it has finished.")


class WriteTransaction:
    """What the one writer does within its transaction.

    Args:
        client: A connection in a transaction, with the lock.
        uri: The knowledge base.

    Attributes:
        state: What the tables held at the start; ``None`` for nothing.
        committed: Whether `commit` was called.
    """

    def __init__(self, client: Client, uri: PostgresUri) -> None:
        self._client = client
        self._tables = self._target = Tables(uri.table)
        self.state: State | None = read_state(client, uri)
        self.committed = False
        self._words, self._with_words = 0, False
        # Rows up to this one existed before the change, or were deleted since.
        self._last_row = 0 if self.state is None else self._last_assigned_row()

    def sources(self) -> Sources:
        """The sources that the knowledge base was made from."""
        rows = self._client.execute(
            sql.SQL("SELECT key, source, sha256 FROM {}").format(self._tables.sources)
        )
        return {key: SourceRecord(source=source, sha256=sha256) for key, source, sha256 in rows}

    def rows_of(self, names: Collection[str]) -> dict[str, list[int]]:
        """The rows of passages and documents by their ids; empty for unknown ids."""
        return rows_of(self._client, self._tables, names)

    def start_rebuild(self, dimension: int, *, words: bool) -> None:
        """Create empty tables, into which `insert` writes.

        Args:
            dimension: D.
            words: Whether passages are searched by words.

        Raises:
            KnowledgeBaseError: The tables exist and are not a knowledge base.
        """
        self._with_words = words
        self._client.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(self._client)
        if self.state is None:
            self._check_names_are_free()
            self._client.execute(self._tables.create_base())
        self._target = self._tables.new
        for statement in self._target.create(dimension, self._last_row + 1):
            self._client.execute(statement)

    def known(self, hashes: NDArray[np.uint64], without: Collection[str]) -> NDArray[np.bool_]:
        """Which of M hashes passages from before the change have, (M,), some sources excluded."""
        statement = sql.SQL(
            "SELECT DISTINCT hash FROM {} WHERE hash = ANY(%s) AND row <= %s AND NOT source = ANY(%s)"
        )
        signed = hashes.view(np.int64)
        values = [signed.tolist(), self._last_row, list(without)]
        rows = self._client.execute(statement.format(self._tables.passages), values).fetchall()
        return np.isin(signed, np.array([value for (value,) in rows], dtype=np.int64))

    def taken_id(self, ids: Collection[str], without: Collection[str]) -> tuple[str, str] | None:
        """A document from before the change with one of these ids: its id and source, some sources excluded."""
        statement = sql.SQL(
            "SELECT document_id, source FROM {} WHERE document_id = ANY(%s) AND row <= %s AND NOT source = ANY(%s) "
            "ORDER BY row LIMIT 1"
        ).format(self._tables.passages)
        values = [[storable(document_id) for document_id in ids], self._last_row, list(without)]
        row = self._client.execute(statement, values).fetchone()
        return None if row is None else (row[0], row[1])

    def insert(
        self,
        passages: Sequence[Passage],
        hashes: NDArray[np.uint64],
        vectors: NDArray[np.float32],
        words: Sequence[Sequence[str]] | None,
    ) -> None:
        """Write passages.

        Args:
            passages: M passages.
            hashes: Hashes of their titles and texts, (M,).
            vectors: (M, D).
            words: The words of each; ``None`` if they are searched by vectors alone.
        """
        statement = sql.SQL("COPY {} ({}, hash, embedding, words, length) FROM STDIN (FORMAT BINARY)")
        with (
            self._client.cursor() as cursor,
            cursor.copy(statement.format(self._target.passages, PASSAGE)) as copy,
        ):
            copy.set_types(_TYPES)
            for number, (passage, hash_) in enumerate(
                zip(passages, hashes.view(np.int64).tolist(), strict=True)
            ):
                columns = [getattr(passage, name) for name in COLUMNS]
                texts = [storable(value) if isinstance(value, str) else value for value in columns]
                word_hashes = None if words is None else hashed(words[number]).view(np.int64).tolist()
                length = len(word_hashes or ())
                copy.write_row([*texts, hash_, vectors[number], word_hashes, length])
                self._words += length

    def discard(self, sources: Collection[str]) -> int:
        """Delete what the change wrote of some sources; returns the number of passages."""
        deleted, words = self._delete(
            sql.SQL("row > %(last)s AND source = ANY(%(sources)s)"), Deletions(sources), self._target
        )
        self._words -= words
        return deleted

    def count(self, deletions: Deletions) -> tuple[int, int]:
        """How many passages, and how many documents with their last passage, a change deletes."""
        statement = sql.SQL(
            "WITH deleted AS MATERIALIZED (SELECT row, document_id FROM {passages} WHERE {deleted}), "
            "touched AS (SELECT document_id, count(*) AS count FROM deleted GROUP BY document_id) "
            "SELECT (SELECT count(*) FROM deleted), (SELECT count(*) FROM touched WHERE count = (SELECT count(*) "
            "FROM {passages} AS p WHERE p.document_id = touched.document_id AND p.row <= %(last)s))"
        ).format(passages=self._tables.passages, deleted=_DELETED)
        ((passages, documents),) = self._client.execute(statement, self._values(deletions)).fetchall()
        return int(passages), int(documents)

    def commit(self, manifest: Manifest, *, index: IndexKind, deletions: Deletions, sources: Sources) -> None:
        """Write the rest of the change, which the end of the transaction then commits.

        Args:
            manifest: The new manifest.
            index: The index of the vectors.
            deletions: What to delete.
            sources: Sources that are new or changed.
        """
        words = self._words
        if self._target is self._tables:
            _, removed = self._delete(_DELETED, deletions, self._tables)
            words += self._total_words() - removed
        else:
            # An index is built faster over rows that exist than row by row.
            for statement in self._target.create_indexes(words=self._with_words):
                self._client.execute(statement)
        self._write_sources(sources, deletions.forgotten)
        self._set_index(index, manifest)
        if self._target is not self._tables:
            self._replace_tables()  # last: from here on readers wait for the commit
        version = 1 if self.state is None else self.state.version + 1
        statement = sql.SQL(
            "INSERT INTO {} AS base (version, manifest, passages, words) VALUES (%s, %s, %s, %s) ON CONFLICT (here) "
            "DO UPDATE SET version = excluded.version, manifest = excluded.manifest, passages = excluded.passages, "
            "words = excluded.words"
        ).format(self._tables.base)
        self._client.execute(statement, [version, manifest.to_json(), manifest.passages, words])
        self.committed = True

    def _check_names_are_free(self) -> None:
        for table in (self._tables.passages, self._tables.sources):
            if self._client.execute("SELECT to_regclass(%s)", [table.as_string()]).fetchall()[0][0]:
                raise KnowledgeBaseError(
                    f"The table {table.as_string()} exists and is not a knowledge base. Choose another name in the "
                    "URI (table=NAME)."
                )

    def _delete(self, condition: sql.Composable, deletions: Deletions, tables: Tables) -> tuple[int, int]:
        """Delete passages; returns their number and the number of their words."""
        statement = sql.SQL(
            "WITH deleted AS (DELETE FROM {} WHERE {} RETURNING length) "
            "SELECT count(*), coalesce(sum(length), 0) FROM deleted"
        ).format(tables.passages, condition)
        ((passages, words),) = self._client.execute(statement, self._values(deletions)).fetchall()
        return int(passages), int(words)

    def _values(self, deletions: Deletions) -> dict[str, Any]:
        return {"sources": list(deletions.sources), "rows": list(deletions.rows), "last": self._last_row}

    def _write_sources(self, sources: Sources, forgotten: Collection[str]) -> None:
        table = self._target.sources
        self._client.execute(
            sql.SQL("DELETE FROM {} WHERE digest = ANY(%s)").format(table), [list(map(_digest, forgotten))]
        )
        with self._client.cursor() as cursor:
            cursor.executemany(
                sql.SQL(
                    "INSERT INTO {} (digest, key, source, sha256) VALUES (%s, %s, %s, %s) ON CONFLICT (digest) "
                    "DO UPDATE SET source = excluded.source, sha256 = excluded.sha256"
                ).format(table),
                [(_digest(key), key, record.source, record.sha256) for key, record in sources.items()],
            )

    def _set_index(self, index: IndexKind, manifest: Manifest) -> None:
        """Create or drop the graph, unless it is as it should be."""
        graphs = self._client.execute(
            "SELECT n.nspname, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "JOIN pg_am a ON a.oid = c.relam JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE i.indrelid = %s::regclass AND a.amname = 'hnsw'",
            [self._target.passages.as_string()],
        ).fetchall()
        if index == "hnsw" and not graphs:
            self._client.execute(self._target.create_graph(manifest.dimension, manifest.index.parameters))
        elif index == "flat":
            for graph in graphs:
                self._client.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(*graph)))

    def _replace_tables(self) -> None:
        pairs = (
            (self._tables.passages, self._target.passages),
            (self._tables.sources, self._target.sources),
        )
        for (old, new), name in zip(pairs, self._tables.plain_names, strict=False):
            self._client.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(old))
            self._client.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(new, sql.Identifier(name)))

    def _last_assigned_row(self) -> int:
        statement = "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence(%s, 'row')::regclass), 0)"
        ((row,),) = self._client.execute(statement, [self._tables.passages.as_string()]).fetchall()
        return int(row)

    def _total_words(self) -> int:
        ((words,),) = self._client.execute(
            sql.SQL("SELECT words FROM {}").format(self._tables.base)
        ).fetchall()
        return int(words)


def _digest(key: str) -> str:
    """A key for the index: PostgreSQL limits the length of an indexed text, and paths may be longer."""
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
