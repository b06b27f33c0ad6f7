"""Reading a version of a knowledge base that was published to Milvus.

Each version is a separate collection, which never changes after its publication. An alias with the name in the
URI points to the current one.

Notation used for tensor shapes: B questions, K passages per question, M rows, N passages, D vector size.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray
from pymilvus import MilvusClient, MilvusException

from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge.bm25 import Analyzer, check_parameters, hashed, no_words
from ragweave.knowledge.caching_reader import CachingReader, Records, ranked
from ragweave.knowledge.layout import MilvusUri
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.milvus.expressions import expression
from ragweave.knowledge.store import COLUMNS
from ragweave.knowledge.vector_index import FLAT, search_all
from ragweave.types import Passage, SourceCount

PROPERTY = "ragweave"
"""The property of a collection that describes the version in it. A collection without it is incomplete."""

K1, B = 0.9, 0.4
"""The parameters of the BM25 scores that a published version holds."""

BATCH = 1000
"""How many passages are sent or read at a time."""

_MOST_DIMENSIONS = 2**32 - 2
_LIMIT = 16_384  # of rows that Milvus returns at a time
_EXACT_ROWS = 2000
_CONDITIONS = 16
_EF_SEARCH, _MAX_EF_SEARCH = 64, 32_768


def connect(uri: MilvusUri) -> Any:
    """Open a connection; raises `KnowledgeBaseError` if the server cannot be used."""
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs every exception that it raises
    with readable_errors(uri):
        return MilvusClient(uri.address, token=uri.token, db_name=uri.database)


@contextmanager
def readable_errors(uri: MilvusUri) -> Iterator[None]:
    """Turn the errors of Milvus into errors of ragweave, which say what to do."""
    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        reason = " ".join(str(getattr(error, "message", error)).split()).rstrip(".")
        raise KnowledgeBaseError(
            f"Milvus could not do this at {uri} ({reason}). Check that it runs and that the URI is right, then run "
            "the command again."
        ) from error


def collections_of(client: Any, uri: MilvusUri) -> list[str]:
    """The collections of a knowledge base, by their versions; some may be incomplete."""
    name = re.compile(rf"{re.escape(uri.collection)}_\d{{6,}}_[0-9a-f_]+")
    return sorted(filter(name.fullmatch, client.list_collections()))


def in_force(client: Any, uri: MilvusUri) -> str | None:
    """The collection that the alias names."""
    return next(
        (
            name
            for name in collections_of(client, uri)
            if uri.collection in client.list_aliases(name)["aliases"]
        ),
        None,
    )


def record_of(client: Any, name: str) -> dict[str, Any] | None:
    """The record that a collection has of its version; ``None`` if it is incomplete."""
    record = client.describe_collection(name)["properties"].get(PROPERTY)
    return None if record is None else json.loads(record)


@lru_cache(maxsize=1 << 16)
def dimension_of(word: str) -> int:
    """The dimension of a word in the vectors of words."""
    return int(hashed([word])[0]) % _MOST_DIMENSIONS


class MilvusReader(CachingReader):
    """Satisfies `Storage` with a collection of Milvus.

    Args:
        uri: The knowledge base.
        collection: The collection of the version.
        record: Its record of the version.
        client: The connection.
    """

    def __init__(self, uri: MilvusUri, collection: str, record: dict[str, Any], client: Any) -> None:
        super().__init__(uri, Manifest.parse(record["manifest"], str(uri)))
        self._uri, self.version = uri, collection.removeprefix(f"{uri.collection}_")
        self._collection, self._columns = collection, record["columns"]
        self._client = client
        self._narrowed: dict[str, tuple[NDArray[np.int64], NDArray[np.float32]] | None] = {}

    @classmethod
    def open(cls, uri: MilvusUri) -> Self:
        """Open the current version."""
        client = None
        if "://" in uri.address or Path(uri.address).exists():  # Milvus Lite would create the file
            client = connect(uri)
            with readable_errors(uri):
                name = in_force(client, uri)
                record = None if name is None else record_of(client, name)
                if name is not None and client.get_load_state(name)["state"].name != "Loaded":
                    client.load_collection(name)  # Milvus Lite releases all when it was killed
        if client is None or name is None or record is None:
            raise KnowledgeBaseError(
                f"There is no knowledge base at {uri}. Publish one with 'ragweave publish KB URI'."
            )
        return cls(uri, name, record, client)

    @cached_property
    def _client(self) -> Any:
        return connect(self._uri)

    def latest(self) -> Self:
        """Open the current version; returns this object if it is current."""
        with readable_errors(self._uri):
            name = in_force(self._client, self._uri)
        return self if name == self._collection else type(self).open(self._uri)

    def search(
        self, questions: NDArray[np.float32], n: int, where: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The passages with the largest inner products that meet a condition: scores and rows, (B, K), best first."""
        few = None if where is None else self._few(where)
        if few is not None:
            scores, rows = ranked([()] * len(questions), n)
            if k := min(n, len(few[0])):
                scores[:, :k], positions = search_all(questions, few[1], k)
                rows[:, :k] = few[0][positions]
            return scores, rows
        results = self.nearest(questions, n, where=expression(where), fields=COLUMNS)
        self._remember({hit["row"]: _record(hit["entity"]) for hits in results for hit in hits})
        return ranked([[(hit["distance"], hit["row"]) for hit in hits] for hits in results], n)

    def nearest(
        self, questions: NDArray[np.float32], n: int, *, where: str = "", fields: Sequence[str] = ()
    ) -> list[list[dict[str, Any]]]:
        """The nearest passages of each question that meet a filter expression, in no particular order."""
        (segment,), given = self.manifest.segments, self.manifest.index.parameters
        ef = max(given.get("efSearch", _EF_SEARCH * segment.breadth), 2 * n * segment.breadth)
        options = {} if segment.factory == FLAT else {"ef": min(ef, _MAX_EF_SEARCH)}
        return self._hits("vector", questions.tolist(), n, where=where, fields=fields, options=options)

    def _few(self, where: str) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """The rows and vectors that meet a condition, if they are few enough to compare all of them."""
        if where not in self._narrowed:
            rule = expression(where)
            ((count,),) = (list(row.values()) for row in self._query(rule, ["count(*)"]))
            few = None
            if count <= _EXACT_ROWS:
                hits = self._query(rule, ["row", "vector"])
                vectors = np.array([hit["vector"] for hit in hits], np.float32)
                rows = np.array([hit["row"] for hit in hits], np.int64)
                few = rows, vectors.reshape(-1, self.manifest.dimension)
            self._narrowed = {**dict(list(self._narrowed.items())[1 - _CONDITIONS :]), where: few}
        return self._narrowed[where]

    def columns(self) -> Collection[str]:
        """The names in the metadata of passages."""
        return self._columns

    def text_scorer(
        self, *, k1: float, b: float, where: str | None = None
    ) -> Callable[[str], MilvusWordScores]:
        """A function that scores the passages that meet a condition by BM25 for a question."""
        if self.manifest.language is None:
            raise no_words(self.location)
        check_parameters(k1, b)
        if (k1, b) != (K1, B):
            raise ConfigurationError(
                f"A published version holds BM25 scores for k1 {K1} and b {B}. Use these, or search the knowledge "
                "base that it was published from."
            )
        analyzer, rule = Analyzer(self.manifest.language), expression(where)
        return lambda question: MilvusWordScores(self._hits, analyzer.words(question), rule)

    def rows_of(self, names: Collection[str]) -> dict[str, list[int]]:
        """The rows of passages and documents by their ids; empty for unknown ids."""
        rows: dict[str, list[int]] = {name: [] for name in names}
        for column in ("id", "document_id"):
            missing = [name for name in names if not rows[name]]
            for first in range(0, len(missing), BATCH):
                rule = f"{column} in {json.dumps(missing[first : first + BATCH], ensure_ascii=False)}"
                for row in self._query(rule, ["row", column]):
                    rows[row[column]].append(row["row"])
        return {name: sorted(known) for name, known in rows.items()}

    def document(self, document_id: str) -> list[Passage]:
        """The passages of a document, in any order."""
        rule = f"document_id == {json.dumps(document_id, ensure_ascii=False)}"
        return [_passage(row) for row in self._query(rule, [*COLUMNS])]

    def passage_of(self, source: str) -> Passage | None:
        """A passage that was read from a source; ``None`` if there is none."""
        rule = f"source == {json.dumps(source, ensure_ascii=False)}"
        return next((_passage(row) for row in self._query(rule, [*COLUMNS])), None)

    def sources_of(self, row: int) -> list[str]:
        """The source that a passage was read from."""
        return [self.passage(row).source]

    def source_counts(self) -> dict[str, SourceCount]:
        """The sources and their numbers of passages."""
        counts: dict[str, SourceCount] = {}
        for part in self._parts(["source", "document_id"]):
            for row in part:
                before = counts.get(row["source"], SourceCount())
                counts[row["source"]] = SourceCount(before.passages + 1, row["document_id"])
        return counts

    def shards(self) -> Iterator[tuple[list[Passage], NDArray[np.float32]]]:
        """All passages with their vectors, (M, D), a part at a time."""
        for part in self._parts(["row", "vector", *COLUMNS]):
            part.sort(key=lambda row: row["row"])
            yield [_passage(row) for row in part], np.array([row["vector"] for row in part], np.float32)

    def bytes(self) -> None:
        """Unknown: Milvus does not report it."""

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        if client := self.__dict__.pop("_client", None):
            client.close()

    def _parts(self, fields: list[str]) -> Iterator[list[dict[str, Any]]]:
        for first in range(0, self.manifest.passages, BATCH):
            yield self._query(f"row >= {first} and row < {first + BATCH}", fields)

    def _load(self, rows: list[int]) -> Records:
        parts = (rows[first : first + BATCH] for first in range(0, len(rows), BATCH))
        fields = ["row", "vector", *COLUMNS]
        return {hit["row"]: _record(hit) for part in parts for hit in self._query(f"row in {part}", fields)}

    def _query(self, rule: str, fields: list[str]) -> list[dict[str, Any]]:
        limit = {} if fields == ["count(*)"] else {"limit": _LIMIT}
        with readable_errors(self._uri):
            hits = list(self._client.query(self._collection, filter=rule, output_fields=fields, **limit))
            if len(hits) == _LIMIT:  # there may be more
                part = self._client.query_iterator(self._collection, filter=rule, output_fields=fields)
                hits = [hit for hits in iter(part.next, []) for hit in hits]
                part.close()
        return hits

    def _hits(
        self,
        field: str,
        questions: Sequence[Any],
        n: int,
        *,
        where: str,
        fields: Sequence[str] = (),
        options: dict[str, Any] | None = None,
    ) -> list[list[dict[str, Any]]]:
        """The hits of each question in no particular order, with some fields; vector hits include their vectors."""
        if not len(questions):
            return []
        with readable_errors(self._uri):
            results = self._client.search(
                self._collection,
                data=questions,
                anns_field=field,
                limit=n,
                filter=where,
                output_fields=["row", *fields, *(["vector"] if fields else [])],
                search_params={"metric_type": "IP", "params": options or {}},
            )
        return [list(hits) for hits in results]


class MilvusWordScores:
    """The BM25 scores of one question; satisfies `WordScores`.

    The vector of a passage holds what each of its words adds to its score, the vector of the question the counts of
    its words, so that the inner product is the score.

    Args:
        search: `MilvusReader._hits`.
        words: The words of the question.
        where: A filter expression.
    """

    def __init__(
        self, search: Callable[..., list[list[dict[str, Any]]]], words: Sequence[str], where: str
    ) -> None:
        self._search, self._where = search, where
        self._words = {word: float(count) for word, count in Counter(map(dimension_of, words)).items()}

    def best(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most K rows that share a word, best first, and their scores."""
        hits = sorted(self._scores(n, self._where).items(), key=lambda hit: (-hit[1], hit[0]))
        return np.array([row for row, _ in hits], np.int64), np.array(
            [score for _, score in hits], np.float32
        )

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of M rows, (M,); 0 for rows that share no word."""
        named = f"row in {rows.tolist()}"
        scores = self._scores(len(rows), f"({self._where}) and {named}" if self._where else named)
        return np.array([scores.get(row, 0.0) for row in rows.tolist()], np.float32)

    def _scores(self, n: int, where: str) -> dict[int, float]:
        if not self._words or not n:
            return {}
        (hits,) = self._search("words", [self._words], n, where=where)
        return {hit["row"]: hit["distance"] for hit in hits if hit["distance"] > 0}


def _passage(values: dict[str, Any]) -> Passage:
    return Passage(*(values[name] for name in COLUMNS))


def _record(values: dict[str, Any]) -> tuple[Passage, NDArray[np.float32]]:
    return _passage(values), np.array(values["vector"], np.float32)
