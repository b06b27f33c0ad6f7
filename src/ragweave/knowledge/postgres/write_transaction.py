"""One change of a knowledge base in PostgreSQL is one transaction: readers see all of it or nothing.

A rebuild writes new tables, which replace the old ones at the end; readers use the old ones until then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg import sql

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge.bm25 import hashed
from ragweave.knowledge.layout import PostgresUri
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.postgres.connection import Client, connect, readable_errors
from ragweave.knowledge.postgres.reader import measured, read_sources, read_state, rows_of
from ragweave.knowledge.postgres.tables import IndexKind, Tables, current_index, storable
from ragweave.knowledge.store import COLUMNS, NUMBERS
from ragweave.types import Passage, Sources

_TYPES = ["int8" if name in NUMBERS else "text" for name in COLUMNS]
_LOST: LiteralString = (
    "{number} <= %(last)s AND (source = ANY(%(sources)s) OR id = ANY(%(ids)s) OR document_id = ANY(%(documents)s)) "
    "OR {number} > %(last)s AND source = ANY(%(failed)s)"
)


@dataclass(frozen=True, slots=True)
class Losses:
    """What a change removes."""

    sources: Collection[str] = ()  # sources whose passages from before the change are lost
    ids: Collection[str] = ()  # passages from before the change that are lost
    documents: Collection[str] = ()  # documents from before the change that are lost
    # sources whose passages from this change are lost because they turned out to be unreadable
    failed: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change did."""

    counts: dict[str, Any]  # the counts of passages in its `ChangeRecord`
    documents: int  # how many more documents there are than before

    @property
    def passages(self) -> int:
        """How many more passages there are than before."""
        return int(self.counts["added"] - self.counts["deleted"])


@contextmanager
def write_transaction(uri: PostgresUri) -> Iterator[WriteTransaction]:
    """Start a change. It is rolled back unless `WriteTransaction.commit` was called."""
    with readable_errors(uri):
        client = connect(uri)
        try:
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
    """The steps of a change within its transaction, for the client that holds the lock."""

    def __init__(self, client: Client, uri: PostgresUri) -> None:
        self._client = client
        self._tables = self._target = Tables(uri.table)
        self.state = read_state(client, uri)  # the state at the start
        self.committed = False  # whether `commit` was called
        self._words, self._with_words = 0, False
        # Rows up to this one existed before the change, or were deleted since.
        self._last_row = self._last_copy = 0
        if self.state is not None:
            self._last_row = self._last_assigned(self._tables.passages, "row")
            self._last_copy = self._last_assigned(self._tables.copies, "number")
        self._inserted = self._inserted_copies = 0

    def sources(self) -> Sources:
        """The sources of the knowledge base."""
        return read_sources(self._client, self._tables)

    def rows_of(self, names: Collection[str]) -> dict[str, list[int]]:
        """The rows of passages and documents by their ids; empty for unknown ids."""
        return rows_of(self._client, self._tables, names)

    def passage_ids(self, names: Collection[str]) -> set[str]:
        """Which names are ids of passages."""
        stored = {storable(name): name for name in names}
        rows = self._run(
            "SELECT id FROM {passages} WHERE id = ANY(%(names)s) UNION SELECT id FROM {copies} "
            "WHERE id = ANY(%(names)s)",
            {"names": list(stored)},
        )
        return {stored[name] for (name,) in rows}

    def start_rebuild(self, dimension: int, *, words: bool) -> None:
        """Create empty tables for vectors of size D, into which `insert` writes; ``words`` are searched as well."""
        self._with_words = words
        self._client.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(self._client)
        if self.state is None:
            self._check_names_are_free()
            self._client.execute(self._tables.create_base())
        self._target, self._last_copy = self._tables.new, 0
        for statement in self._target.create(dimension, self._last_row + 1):
            self._client.execute(statement)

    def known(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of M hashes belong to passages from before the change, (M,)."""
        signed = hashes.view(np.int64)
        statement: LiteralString = "SELECT DISTINCT hash FROM {passages} WHERE hash = ANY(%s) AND row <= %s"
        rows = self._run(statement, [signed.tolist(), self._last_row])
        return np.isin(signed, np.array([value for (value,) in rows], dtype=np.int64))

    def taken_id(self, ids: Collection[str], without: Collection[str]) -> tuple[str, str] | None:
        """A document from before the change with one of these ids: its id and source, some sources excluded."""
        rows = self._run(
            "SELECT document_id, source FROM {passages} WHERE document_id = ANY(%(ids)s) AND row <= %(row)s "
            "AND NOT source = ANY(%(without)s) UNION ALL SELECT document_id, source FROM {copies} WHERE "
            "document_id = ANY(%(ids)s) AND number <= %(copy)s AND NOT source = ANY(%(without)s) LIMIT 1",
            {
                "ids": list(map(storable, ids)),
                "without": list(without),
                "row": self._last_row,
                "copy": self._last_copy,
            },
        )
        return next(((name, source) for name, source in rows), None)

    def insert(
        self,
        passages: Sequence[Passage],
        hashes: NDArray[np.uint64],
        vectors: NDArray[np.float32],
        words: Sequence[Sequence[str]] | None,
    ) -> None:
        """Write M passages with their hashes, (M,), their vectors, (M, D), and the words of each, if any."""
        word_hashes: list[list[int] | None] = [None] * len(passages)
        if words is not None:
            word_hashes = [hashed(part).view(np.int64).tolist() for part in words]
        lengths = [len(part or ()) for part in word_hashes]
        columns: dict[str, tuple[str, Iterable[Any]]] = {
            "embedding": ("vector", vectors),
            "words": ("int8[]", word_hashes),
            "length": ("int4", lengths),
        }
        self._copy(self._target.passages, passages, hashes, columns)
        self._inserted += len(passages)
        self._words += sum(lengths)

    def insert_copies(self, copies: Sequence[Passage], hashes: NDArray[np.uint64]) -> None:
        """Write M copies of passages, whose hashes are (M,)."""
        self._copy(self._target.copies, copies, hashes, {})
        self._inserted_copies += len(copies)

    def _copy(
        self,
        table: sql.Identifier,
        passages: Sequence[Passage],
        hashes: NDArray[np.uint64],
        columns: dict[str, tuple[str, Iterable[Any]]],
    ) -> None:
        """Write passages with their hashes and further columns, whose types are given."""
        names = sql.SQL(", ").join(map(sql.Identifier, (*COLUMNS, "hash", *columns)))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(table, names)
        values = (hashes.view(np.int64).tolist(), *(values for _, values in columns.values()))
        with self._client.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([*_TYPES, "int8", *(kind for kind, _ in columns.values())])
            for passage, *others in zip(passages, *values, strict=True):
                fields = [getattr(passage, name) for name in COLUMNS]
                fields = [storable(field) if isinstance(field, str) else field for field in fields]
                copy.write_row([*fields, *others])

    def remove(self, losses: Losses) -> Outcome:
        """Remove what a change loses. A passage with copies becomes the first of these, and keeps its row."""
        values: dict[str, Any] = {
            "sources": list(losses.sources),
            "ids": list(map(storable, losses.ids)),
            "documents": list(map(storable, losses.documents)),
            "failed": list(losses.failed),
        }
        lost_copies = self._run(
            "DELETE FROM {copies} WHERE " + _LOST + " RETURNING number",  # noqa: S608
            {**values, "last": self._last_copy},
            number=sql.Identifier("number"),
        )
        self._run("CREATE TEMPORARY TABLE lost (row bigint, hash bigint, document_id text) ON COMMIT DROP")
        self._run(
            "INSERT INTO lost SELECT row, hash, document_id FROM {passages} WHERE " + _LOST,  # noqa: S608
            {**values, "last": self._last_row},
            number=sql.Identifier("row"),
        )
        # New copies first, so that a passage which a changed source still holds stays with that source.
        self._run("CREATE TEMPORARY TABLE heir (LIKE {copies}, row bigint) ON COMMIT DROP")
        self._run(
            "INSERT INTO heir SELECT DISTINCT ON (row) c.*, row FROM lost JOIN {copies} AS c USING (hash) "
            "ORDER BY row, number > %s DESC, number",
            [self._last_copy],
        )
        self._run("CREATE TEMPORARY TABLE touched (document_id text) ON COMMIT DROP")
        self._run(
            "INSERT INTO touched SELECT document_id FROM lost UNION SELECT document_id FROM heir "
            "UNION SELECT document_id FROM {passages} WHERE row > %s",
            [self._last_row],
        )
        documents_before = self._count_touched(self._last_row)
        self._run("DELETE FROM {copies} WHERE number IN (SELECT number FROM heir)")
        identity = [sql.Identifier(name) for name in COLUMNS if name not in ("title", "text")]
        heirs = self._run(
            "UPDATE {passages} AS p SET {changes} FROM heir WHERE p.row = heir.row RETURNING p.row, heir.number",
            changes=sql.SQL(", ").join(sql.SQL("{0} = heir.{0}").format(name) for name in identity),
        )
        deleted = self._run(
            "DELETE FROM {passages} WHERE row IN (SELECT row FROM lost EXCEPT SELECT row FROM heir) "
            "RETURNING row, length"
        )
        documents = self._count_touched(2**62) - documents_before
        self._words -= sum(length for _, length in deleted)
        # All passages of a changed source count as deleted and added, even those that stay in their rows.
        renewed = sum(row <= self._last_row and number > self._last_copy for row, number in heirs)
        fresh = sum(number > self._last_copy for _, number in heirs)
        old = sum(row <= self._last_row for row, _ in deleted)
        lost_fresh = sum(number > self._last_copy for (number,) in lost_copies)
        counts = {
            "added": self._inserted - (len(deleted) - old) + renewed,
            "deleted": old + renewed,
            "duplicates": self._inserted_copies - lost_fresh - fresh,
            "kept": len(heirs) - fresh,
        }
        return Outcome(counts, documents)

    def _count_touched(self, last: int) -> int:
        """How many of the documents that a change touches have passages up to a row."""
        ((count,),) = self._run(
            "SELECT count(*) FROM touched AS t WHERE EXISTS (SELECT FROM {passages} AS p "
            "WHERE p.document_id = t.document_id AND p.row <= %s)",
            [last],
        )
        return int(count)

    def commit(
        self, manifest: Manifest, *, index: IndexKind, forgotten: Collection[str], sources: Sources
    ) -> None:
        """Write the rest of the change, which the end of the transaction then commits.

        Sources that are ``forgotten``, by their keys, can be added again; ``sources`` are new or changed.
        """
        words = self._words
        if self._target is self._tables:
            words += int(self._run("SELECT words FROM {base}")[0][0])
        else:
            # An index is built faster over rows that exist than row by row.
            for statement in self._target.create_indexes(words=self._with_words):
                self._client.execute(statement)
        self._write_sources(sources, forgotten)
        self._set_index(index, manifest)
        if index == "hnsw" and manifest.segments[0].is_stale:
            manifest = measured(self._client, self._target, manifest)
            if current_index(manifest) == "flat":
                self._set_index("flat", manifest)
        if self._target is not self._tables:
            self._replace_tables()  # last: from here on readers wait for the commit
        version = 1 if self.state is None else self.state[0] + 1
        statement = self._tables.statement(
            "INSERT INTO {base} AS base (version, manifest, passages, words) VALUES (%s, %s, %s, %s) ON CONFLICT "
            "(here) DO UPDATE SET version = excluded.version, manifest = excluded.manifest, "
            "passages = excluded.passages, words = excluded.words"
        )
        self._client.execute(statement, [version, manifest.to_json(), manifest.passages, words])
        self.committed = True

    def _check_names_are_free(self) -> None:
        for table in self._tables.rebuilt:
            if self._client.execute("SELECT to_regclass(%s)", [table.as_string()]).fetchall()[0][0]:
                raise KnowledgeBaseError(
                    f"The table {table.as_string()} exists and is not a knowledge base. Choose another name in the "
                    "URI (table=NAME)."
                )

    def _write_sources(self, sources: Sources, forgotten: Collection[str]) -> None:
        self._run("DELETE FROM {sources} WHERE digest = ANY(%s)", [list(map(_digest, forgotten))])
        statement = self._target.statement(
            "INSERT INTO {sources} (digest, key, source, sha256) VALUES (%s, %s, %s, %s) ON CONFLICT (digest) "
            "DO UPDATE SET source = excluded.source, sha256 = excluded.sha256"
        )
        rows = [(_digest(key), key, record.source, record.sha256) for key, record in sources.items()]
        with self._client.cursor() as cursor:
            cursor.executemany(statement, rows)

    def _set_index(self, index: IndexKind, manifest: Manifest) -> None:
        """Create or drop the graph if needed."""
        graphs = self._run(
            "SELECT n.nspname, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "JOIN pg_am a ON a.oid = c.relam JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE i.indrelid = %s::regclass AND a.amname = 'hnsw'",
            [self._target.passages.as_string()],
        )
        if index == "hnsw" and not graphs:
            self._client.execute(self._target.create_graph(manifest.dimension, manifest.index.parameters))
        elif index == "flat":
            for graph in graphs:
                self._client.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(*graph)))

    def _replace_tables(self) -> None:
        names = self._tables.plain_names
        for old, new, name in zip(self._tables.rebuilt, self._target.rebuilt, names, strict=False):
            self._client.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(old))
            self._client.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(new, sql.Identifier(name)))

    def _last_assigned(self, table: sql.Identifier, column: str) -> int:
        statement = "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence(%s, %s)::regclass), 0)"
        ((number,),) = self._client.execute(statement, [table.as_string(), column]).fetchall()
        return int(number)

    def _run(
        self, statement: LiteralString, values: Any = None, **parts: sql.Composable
    ) -> list[tuple[Any, ...]]:
        """The rows of a statement about the tables that the change writes."""
        cursor = self._client.execute(self._target.statement(statement, **parts), values)
        return cursor.fetchall() if cursor.description else []


def _digest(key: str) -> str:
    """A key for the index: PostgreSQL limits the length of an indexed text, and paths may be longer."""
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
