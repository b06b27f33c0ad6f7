"""Publishing a version of a knowledge base to Milvus.

A version is written into a new collection, which nothing reads until it is complete. Then the alias of the
knowledge base is switched to it, which Milvus does atomically. A publication that is killed leaves the alias
unchanged, and the next one continues where it stopped.

Notation used for tensor shapes: M rows, N passages, D vector size, K neighbours.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType

from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge.bm25 import Analyzer, idf
from ragweave.knowledge.caching_reader import ranked
from ragweave.knowledge.layout import MilvusUri
from ragweave.knowledge.manifest import EXACT, FORMAT_VERSION, ChangeRecord, Manifest, SegmentRecord
from ragweave.knowledge.milvus.expressions import facts_of
from ragweave.knowledge.milvus.reader import (
    BATCH,
    K1,
    PROPERTY,
    B,
    MilvusReader,
    collections_of,
    connect,
    dimension_of,
    in_force,
    readable_errors,
    record_of,
)
from ragweave.knowledge.store import COLUMNS, NUMBERS
from ragweave.knowledge.vector_index import FLAT, least_recall, measure_recall, search_all
from ragweave.types import Passage, Progress

if TYPE_CHECKING:  # imports the readers
    from ragweave.knowledge.storage import Storage

_MOST_BYTES = 65_535  # of a text in Milvus
_SAMPLE = 50
_FACTORY = "HNSW32"
_NO_WORDS = {2**32 - 2: 1.0}  # a dimension that no word has


def publish(storage: Storage, uri: MilvusUri, *, keep: int, progress: Progress) -> None:
    """Publish a version and make it current; see `KnowledgeBase.publish`."""
    if keep < 0:
        raise ConfigurationError(f"keep is {keep}. Give 0 or more.")
    name = f"{uri.collection}_{storage.version}_{storage.manifest.checksum[:8]}"
    with closing(connect(uri)) as client, readable_errors(uri):
        if name not in collections_of(client, uri) or record_of(client, name) is None:
            _Publication(client, uri, storage, name).write(progress)
        _put_in_force(client, uri, name)
        *older, _ = _complete(client, uri, up_to=name)
        incomplete = [one for one in collections_of(client, uri) if one < name and not record_of(client, one)]
        for one in (*older[: max(len(older) - keep, 0)], *incomplete):
            client.drop_collection(one)


def roll_back(uri: MilvusUri) -> None:
    """Make the version before the current one current again; see `ragweave.knowledge.base.roll_back`."""
    with closing(connect(uri)) as client, readable_errors(uri):
        current = in_force(client, uri)
        older = [] if current is None else _complete(client, uri, up_to=current)[:-1]
        if not older:
            raise KnowledgeBaseError(
                f"No older version is at {uri}. Publish one with 'ragweave publish KB URI'."
            )
        _put_in_force(client, uri, older[-1])


def _put_in_force(client: Any, uri: MilvusUri, name: str) -> None:
    client.load_collection(name)
    switch = client.create_alias if in_force(client, uri) is None else client.alter_alias
    switch(name, uri.collection)


def _complete(client: Any, uri: MilvusUri, *, up_to: str) -> list[str]:
    """The complete collections in the order of their publication, up to one of them."""
    records = {name: record_of(client, name) for name in collections_of(client, uri)}
    times = {name: record["published"] for name, record in records.items() if record}
    return [name for name in sorted(times, key=lambda one: times[one]) if times[name] <= times[up_to]]


class _Publication:
    """Writes one version into its collection.

    Args:
        client: The connection.
        uri: The knowledge base.
        storage: The version.
        name: The collection.
    """

    def __init__(self, client: Any, uri: MilvusUri, storage: Storage, name: str) -> None:
        self._client, self._uri, self._storage, self._name = client, uri, storage, name
        manifest = storage.manifest
        self._count = manifest.passages
        self._words = None if manifest.language is None else _WordVectors(manifest)
        self._flat = manifest.index.kind == "flat"
        self._sample = np.sort(np.random.default_rng(0).permutation(self._count)[:_SAMPLE])
        self._questions = np.zeros((len(self._sample), manifest.dimension), np.float32)

    def write(self, progress: Progress) -> None:
        """Write all passages from where an interrupted publication ended, and describe the version."""
        progress.start("Counting words", self._count)
        for row, passages, vectors in self._shards():
            here = (self._sample >= row) & (self._sample < row + len(passages))
            self._questions[here] = vectors[self._sample[here] - row]
            if self._words is not None:
                self._words.count(passages)
            progress.advance(len(passages))
        progress.start("Publishing", self._count)
        best = (np.zeros((len(self._sample), 0), np.float32), np.zeros((len(self._sample), 0), np.int64))
        written = self._begin()
        for row, passages, vectors in self._shards():
            best = _merged(best, self._questions, vectors, row)
            for first in range(0, len(passages), BATCH):
                if row + first + BATCH > written:
                    part = slice(first, first + BATCH)
                    self._client.upsert(self._name, self._rows(row + first, passages[part], vectors[part]))
            progress.advance(len(passages))
        self._client.flush(self._name)
        self._describe(best[1])

    def _shards(self) -> Iterator[tuple[int, list[Passage], NDArray[np.float32]]]:
        row = 0
        for passages, vectors in self._storage.shards():
            yield row, passages, np.asarray(vectors)
            row += len(passages)

    def _begin(self) -> int:
        """Create the collection, or find how many of its passages are certainly written."""
        if self._client.has_collection(self._name):
            self._index()
            self._client.load_collection(self._name)
            ((written,),) = (
                row.values() for row in self._client.query(self._name, filter="", output_fields=["count(*)"])
            )
            return max(0, int(written) - BATCH)  # of the last batch, any part may have arrived
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._storage.manifest.dimension)
        if self._words is not None:
            schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_field("facts", DataType.JSON)
        for name in COLUMNS:
            if name in NUMBERS:
                schema.add_field(name, DataType.INT64)
            else:
                schema.add_field(name, DataType.VARCHAR, max_length=_MOST_BYTES)
        self._client.create_collection(self._name, schema=schema, consistency_level="Strong")
        self._index()
        return 0

    def _rows(self, row: int, passages: list[Passage], vectors: NDArray[np.float32]) -> list[dict[str, Any]]:
        words = None if self._words is None else self._words.vectors(passages)
        rows = []
        for number, passage in enumerate(passages):
            values = {name: getattr(passage, name) for name in COLUMNS}
            for name, value in values.items():
                if isinstance(value, str) and len(value.encode()) > _MOST_BYTES:
                    raise KnowledgeBaseError(
                        f"The {name} of passage {passage.id} is longer than the {_MOST_BYTES:,} bytes that Milvus "
                        "stores. Build the knowledge base without it."
                    )
            if words is not None:
                values["words"] = words[number]
            rows.append(
                {
                    **values,
                    "row": row + number,
                    "vector": vectors[number],
                    "facts": facts_of(passage.metadata),
                }
            )
        return rows

    def _index(self) -> None:
        if self._client.list_indexes(self._name):
            return
        parameters = self._client.prepare_index_params()
        efficient = {
            "M": 32,
            "efConstruction": self._storage.manifest.index.parameters.get("efConstruction", 100),
        }
        kind: dict[str, Any] = (
            {"index_type": "FLAT"} if self._flat else {"index_type": "HNSW", "params": efficient}
        )
        parameters.add_index("vector", index_name="vector", metric_type="IP", **kind)
        if self._words is not None:
            parameters.add_index(
                "words", index_name="words", index_type="SPARSE_INVERTED_INDEX", metric_type="IP"
            )
        self._client.create_index(self._name, parameters)

    def _describe(self, nearest: NDArray[np.int64]) -> None:
        """Measure the recall, and record the version, which makes the collection complete."""
        source = self._storage.manifest
        segment = SegmentRecord(
            name="passages",
            rows=self._count,
            passages=self._count,
            documents=source.documents,
            factory=FLAT if self._flat else _FACTORY,
            recall=EXACT,
            files={},
            measured=self._count,
        )
        manifest = replace(
            source,
            change=ChangeRecord(kind="publish", added=self._count),
            segments=(segment,),
            files={},
            format_version=FORMAT_VERSION,
        )
        self._client.load_collection(self._name)
        if not self._flat:

            def search(k: int, breadth: int, *, exact: bool = False) -> NDArray[np.int64]:
                if exact:
                    return nearest[:, :k]
                broad = replace(manifest, segments=(replace(segment, breadth=breadth),))
                reader = MilvusReader(self._uri, self._name, _record(broad), self._client)
                results = reader.nearest(self._questions, k)
                return ranked([[(hit["distance"], hit["row"]) for hit in hits] for hits in results], k)[1]

            least = least_recall(source.index.kind)
            recall, breadth = measure_recall(self._sample, self._count, search, least=least)
            manifest = replace(manifest, segments=(replace(segment, recall=recall, breadth=breadth),))
        record = _record(manifest, self._storage.columns())
        self._client.alter_collection_properties(self._name, {PROPERTY: json.dumps(record)})


def _record(manifest: Manifest, columns: Any = ()) -> dict[str, Any]:
    return {"manifest": manifest.to_json(), "columns": sorted(columns), "published": time.time()}


def _merged(
    best: tuple[NDArray[np.float32], NDArray[np.int64]],
    questions: NDArray[np.float32],
    vectors: NDArray[np.float32],
    row: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Merge the nearest rows of M questions with those of a shard, whose first row is ``row``."""
    most = max(map(int, EXACT)) + 1
    scores, rows = search_all(questions, np.ascontiguousarray(vectors), min(most, len(vectors)))
    scores, rows = np.concatenate([best[0], scores], axis=1), np.concatenate([best[1], rows + row], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :most]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


class _WordVectors:
    """The vectors of words of passages, whose inner products with counts of words are BM25 scores.

    Args:
        manifest: Of the version.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._analyzer = Analyzer(manifest.language or "none")
        self._frequencies: Counter[int] = Counter()
        self._count = self._length = 0

    def count(self, passages: Sequence[Passage]) -> None:
        """Count in how many passages each word occurs."""
        for words in self._counted(passages):
            self._frequencies.update(words.keys())
            self._count += 1
            self._length += words.total()

    def vectors(self, passages: Sequence[Passage]) -> list[dict[int, float]]:
        """The vectors of passages, after all were counted."""
        mean = self._length / max(self._count, 1) or 1.0
        vectors = []
        for words in self._counted(passages):
            norm = K1 * (1 - B + B * words.total() / mean)
            vector = {
                word: idf(self._count, self._frequencies[word]) * tf / (tf + norm)
                for word, tf in words.items()
            }
            vectors.append(vector or _NO_WORDS)
        return vectors

    def _counted(self, passages: Sequence[Passage]) -> Iterator[Counter[int]]:
        for passage in passages:
            words = self._analyzer.words(f"{passage.title}\n{passage.text}")
            yield Counter(map(dimension_of, words))
