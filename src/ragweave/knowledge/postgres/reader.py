"""Reading a knowledge base in PostgreSQL.

Notation used for tensor shapes: B questions, K passages per question, M rows, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, LiteralString, Self

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge.bm25 import Analyzer, check_parameters, no_words
from ragweave.knowledge.caching_reader import CachingReader, Records, ranked
from ragweave.knowledge.layout import PostgresUri
from ragweave.knowledge.manifest import EXACT, Manifest
from ragweave.knowledge.postgres.conditions import Where
from ragweave.knowledge.postgres.connection import Client, Connection, connect, readable_errors
from ragweave.knowledge.postgres.tables import FACTORY, Tables, current_index, storable
from ragweave.knowledge.postgres.word_scores import PostgresWordScores
from ragweave.knowledge.store import COLUMNS, SHARD
from ragweave.knowledge.vector_index import least_recall, measure_recall
from ragweave.types import Passage, SourceCount, SourceRecord, Sources

_ROWS: LiteralString = (
    "SELECT {column}, row FROM {passages} WHERE {column} = ANY(%(names)s) UNION "
    "SELECT c.{column}, row FROM {copies} AS c JOIN {passages} USING (hash) WHERE c.{column} = ANY(%(names)s)"
)
_EF_SEARCH, _MAX_EF_SEARCH = 100, 1000
_SAMPLE = 50
_EXACT_ROWS, _EXACT_SHARE = 10_000, 0.05
_CONDITIONS = 16
ANY_PASSAGE = Where(None)


@dataclass(frozen=True, slots=True)
class State:
    """The knowledge base that the tables hold."""

    version: int  # the number of its changes
    manifest: Manifest  # its manifest


def read_state(client: Client, uri: PostgresUri) -> tuple[int, str] | None:
    """The version and the text of the manifest, which a rebuild need not understand; ``None`` without them."""
    tables = Tables(uri.table)
    name = tables.base.as_string(client)
    ((exists,),) = client.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchall()
    if not exists:
        return None
    row = client.execute(tables.statement("SELECT version, manifest FROM {base}")).fetchone()
    return None if row is None else (int(row[0]), str(row[1]))


def existing(state: tuple[int, str] | None, uri: PostgresUri) -> State:
    """The state of a knowledge base; raises `KnowledgeBaseError` if there is none that can be read."""
    if state is None:
        raise KnowledgeBaseError(
            f"There is no knowledge base at {uri}. Build one with 'ragweave index SOURCE --output URI'."
        )
    return State(state[0], Manifest.parse(state[1], str(uri)))


def read_sources(client: Client, tables: Tables) -> Sources:
    """The sources of the knowledge base."""
    rows = client.execute(tables.statement("SELECT key, source, sha256 FROM {sources}"))
    return {key: SourceRecord(source=source, sha256=sha256) for key, source, sha256 in rows}


def rows_of(client: Client, tables: Tables, names: Collection[str]) -> dict[str, list[int]]:
    """The rows of passages and documents by their ids; if a passage and a document share one, the passage's."""
    rows: dict[str, list[int]] = {name: [] for name in names}
    for column in ("id", "document_id"):
        missing = {storable(name): name for name in names if not rows[name]}
        statement = tables.statement(_ROWS, column=sql.Identifier(column))
        for value, row in client.execute(statement, {"names": list(missing)}) if missing else ():
            rows[missing[value]].append(row)
    return {name: sorted(known) for name, known in rows.items()}


def nearest(
    client: Client,
    questions: NDArray[np.float32],
    *,
    tables: Tables,
    manifest: Manifest,
    n: int,
    exact: bool = False,
    where: Where = ANY_PASSAGE,
) -> list[list[tuple[Any, ...]]]:
    """The rows of `Tables.nearest` for B questions, (B, D), unsorted, in one round trip; ``exact`` compares all."""
    if not len(questions):
        return []
    breadth = manifest.segments[0].breadth
    ef = max(manifest.index.parameters.get("efSearch", _EF_SEARCH * breadth), 2 * n * breadth)
    statement = tables.nearest(manifest, where.condition)
    with client.pipeline():
        client.execute(
            "SELECT set_config('hnsw.ef_search', %s, false), set_config('jit', 'off', false), "
            "set_config('enable_indexscan', %s, false)",
            [str(min(ef, _MAX_EF_SEARCH)), "off" if exact else "on"],
        )
        # From pgvector 0.8 on, a scan continues until it has n passages that are not deleted.
        client.execute(
            "SELECT set_config('hnsw.iterative_scan', 'strict_order', false) FROM pg_extension "
            "WHERE extname = 'vector' AND string_to_array(extversion, '.')::int[] >= '{0,8}'"
        )
        cursors = [
            client.execute(statement, {"vector": question, "n": n, **where.values}, binary=True)
            for question in questions
        ]
        results = [cursor.fetchall() for cursor in cursors]
        client.execute("SELECT set_config('enable_indexscan', 'on', false)")
        return results


def measured(client: Client, tables: Tables, manifest: Manifest) -> Manifest:
    """A manifest with the recall of the graph, or with a flat index if that is too low for the requested kind."""
    # Sorting rows by a hash gives a stable sample.
    statement = tables.statement("SELECT row, embedding FROM {passages} ORDER BY hashint8(row) LIMIT %s")
    sampled = client.execute(statement, [_SAMPLE], binary=True).fetchall()
    rows = np.array([row for row, _ in sampled], np.int64)
    questions = np.array([_array(vector) for _, vector in sampled], np.float32)
    (segment,) = manifest.segments

    def search(k: int, breadth: int, *, exact: bool = False) -> NDArray[np.int64]:
        broad = replace(manifest, segments=(replace(segment, breadth=breadth),))
        results = nearest(client, questions, tables=tables, manifest=broad, n=k, exact=exact)
        return ranked([[hit[:2] for hit in hits] for hits in results], k)[1]

    least = least_recall(manifest.index.kind)
    recall, breadth = measure_recall(rows, segment.passages, search, least=least)
    if min(recall.values()) < least:
        segment, recall, breadth = replace(segment, factory=FACTORY["flat"]), EXACT, 1
    measured = replace(segment, recall=recall, breadth=breadth, measured=segment.passages)
    return replace(manifest, segments=(measured,))


class PostgresReader(CachingReader):
    """Satisfies `Storage` with tables of PostgreSQL."""

    def __init__(self, connection: Connection, state: State) -> None:
        super().__init__(connection.uri, state.manifest)
        self.version = f"{state.version:06}"
        self._connection = connection
        self._tables = Tables(connection.uri.table)
        self._counts: dict[str, int] = {}

    @classmethod
    def open(cls, connection: Connection) -> Self:
        """Open the knowledge base in the tables."""
        uri = connection.uri
        return cls(connection, existing(connection.run(lambda client: read_state(client, uri)), uri))

    def latest(self) -> Self:
        """Open the current version; returns this object if nothing has changed."""
        latest = type(self).open(self._connection)
        same = (latest.version, latest.manifest.checksum) == (self.version, self.manifest.checksum)
        return self if same else latest

    def search(
        self, questions: NDArray[np.float32], n: int, where: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The passages with the largest inner products that meet a condition: scores and rows, (B, K), best first."""
        manifest = self.manifest
        matching = manifest.passages if where is None else self._count(where)
        is_flat = current_index(manifest) == "flat"
        is_small = matching < manifest.passages and matching <= max(
            _EXACT_ROWS, _EXACT_SHARE * manifest.passages
        )
        find = partial(nearest, tables=self._tables, manifest=manifest, n=n, where=Where(where))

        def work(client: Client) -> list[list[tuple[Any, ...]]]:
            results = find(client, questions, exact=is_small)
            # A scan ends after a number of rows, many of which may be deleted or not match.
            lacking = [i for i, hits in enumerate(results) if len(hits) < min(n, matching)]
            if lacking and not is_flat and not is_small:
                for i, hits in zip(lacking, find(client, questions[lacking], exact=True), strict=True):
                    results[i] = hits
            return results

        results = self._connection.run(work)
        self._remember(_by_row(hit[1:] for hits in results for hit in hits))
        return ranked([[hit[:2] for hit in hits] for hits in results], n)

    def columns(self) -> list[str]:
        """The names in the metadata of passages."""
        statement = "SELECT DISTINCT jsonb_object_keys(metadata::jsonb) FROM {passages}"
        return [name for (name,) in self._fetch(statement)]

    def _count(self, where: str) -> int:
        """How many passages met a condition when it was first used."""
        if where not in self._counts:
            condition = Where(where)
            statement = self._tables.statement(
                "SELECT count(*) FROM {passages} WHERE {condition}", condition=condition.condition
            )
            ((count,),) = self._connection.fetch(statement, condition.values)
            self._counts = {**dict(list(self._counts.items())[-_CONDITIONS:]), where: int(count)}
        return self._counts[where]

    def text_scorer(
        self, *, k1: float, b: float, where: str | None = None
    ) -> Callable[[str], PostgresWordScores]:
        """A function that scores the passages that meet a condition by BM25 for a question."""
        if self.manifest.language is None:
            raise no_words(self.location)
        check_parameters(k1, b)
        analyzer = Analyzer(self.manifest.language)
        return lambda question: PostgresWordScores(
            self._connection, self._tables, analyzer.words(question), k1=k1, b=b, where=Where(where)
        )

    def rows_of(self, names: Collection[str]) -> dict[str, list[int]]:
        """The rows of passages and documents by their ids; empty for unknown ids."""
        return self._connection.run(lambda client: rows_of(client, self._tables, names))

    def document(self, document_id: str) -> list[Passage]:
        """The passages of a document, with their ids, source and places in it, in any order."""
        columns = [sql.Identifier("p" if name in ("title", "text") else "c", name) for name in COLUMNS]
        statement = self._tables.statement(
            "SELECT {columns} FROM {passages} WHERE document_id = %(id)s UNION ALL SELECT {columns_of_copies} "
            "FROM {copies} AS c JOIN {passages} AS p USING (hash) WHERE c.document_id = %(id)s",
            columns_of_copies=sql.SQL(", ").join(columns),
        )
        return [Passage(*row) for row in self._connection.fetch(statement, {"id": storable(document_id)})]

    def passage_of(self, source: str) -> Passage | None:
        """A passage that was read from a source; ``None`` if there is none."""
        rows = self._fetch("SELECT {columns} FROM {passages} WHERE source = %s LIMIT 1", [storable(source)])
        return next((Passage(*row) for row in rows), None)

    def sources_of(self, row: int) -> list[str]:
        """The sources that hold a passage, each once."""
        copies = self._fetch(
            "SELECT c.source FROM {copies} AS c JOIN {passages} USING (hash) WHERE row = %s ORDER BY number",
            [row],
        )
        return list(dict.fromkeys([self.passage(row).source, *(source for (source,) in copies)]))

    def source_counts(self) -> dict[str, SourceCount]:
        """The sources and their numbers of passages, 0 where all are deleted."""
        counts = self._fetch(
            "SELECT known.source, count(p.source), coalesce(min(p.document_id), '') "
            "FROM (SELECT DISTINCT source FROM {sources}) known "
            "LEFT JOIN (SELECT source, document_id FROM {passages} "
            "UNION ALL SELECT source, document_id FROM {copies}) p USING (source) GROUP BY known.source"
        )
        return {source: SourceCount(int(count), document_id) for source, count, document_id in counts}

    def shards(self) -> Iterator[tuple[list[Passage], NDArray[np.float32]]]:
        """All passages with their vectors, (M, D), a shard at a time, as of one moment."""
        statement = self._tables.statement("SELECT embedding, {columns} FROM {passages} ORDER BY row")
        uri = self._connection.uri
        with (
            readable_errors(uri),
            connect(uri) as client,
            client.transaction(),
            client.cursor(name="ragweave_shards") as cursor,
        ):
            cursor.execute(statement, binary=True)
            while rows := cursor.fetchmany(SHARD):
                vectors = np.array([_array(row[0]) for row in rows], dtype=np.float32)
                yield [Passage(*columns) for _, *columns in rows], vectors

    def bytes(self) -> int:
        """The size of the tables with their indexes."""
        tables = (self._tables.passages, self._tables.sources, self._tables.copies, self._tables.base)
        names = [table.as_string() for table in tables]
        statement = "SELECT sum(pg_total_relation_size(name::regclass)) FROM unnest(%s::text[]) AS name"
        ((size,),) = self._fetch(statement, [names])
        return int(size)

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        self._connection.close()

    def _load(self, rows: list[int]) -> Records:
        statement = self._tables.statement(
            "SELECT row, embedding, {columns} FROM {passages} WHERE row = ANY(%s)"
        )
        return _by_row(self._connection.fetch(statement, [rows], binary=True))

    def _fetch(self, statement: LiteralString, values: Any = None) -> list[tuple[Any, ...]]:
        return self._connection.fetch(self._tables.statement(statement), values)


def _by_row(rows: Iterable[tuple[Any, ...]]) -> Records:
    return {row: (Passage(*columns), _array(vector)) for row, vector, *columns in rows}


def _array(vector: Any) -> NDArray[np.float32]:
    return vector.to_numpy() if hasattr(vector, "to_numpy") else vector
