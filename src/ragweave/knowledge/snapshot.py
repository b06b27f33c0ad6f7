"""One version of a knowledge base in a folder, opened: its segments in their order, with rows counted from 0.

Deleted rows are excluded from all results, and keep their numbers.

Notation used for tensor shapes: B questions, K passages per question, M rows, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ragweave.errors import KnowledgeBaseError, TruncatedFileError
from ragweave.knowledge import store
from ragweave.knowledge.bm25 import BM25, Analyzer, LearnedWords, Postings, RowScores, no_words
from ragweave.knowledge.filters import Columns, parse
from ragweave.knowledge.layout import (
    CHECKED_BYTES,
    Layout,
    Pointer,
    SegmentLayout,
    files_of,
    problem_of,
    read_sources,
)
from ragweave.knowledge.manifest import FileRecord, Manifest, SegmentRecord
from ragweave.knowledge.vector_index import FLAT, LiveIndex, read_index
from ragweave.types import Passage, SourceCount, Sources

NO_COPIES: NDArray[np.int64] = np.zeros((0, 2), np.int64)  # the rows of no copies; see `VersionLayout`

_CONDITIONS = 16


class Copies:
    """Passages with the title and text of another one, whose row they share: it stays as long as one of them.

    ``table`` holds M copies without title and text; ``rows``, (M, 2), their rows and whether the row has their ids.
    """

    def __init__(self, table: store.PassageTable, rows: NDArray[np.int64]) -> None:
        self.table, self.rows, self.current = table, rows[:, 0], rows[:, 1] > 0
        self._positions = np.flatnonzero(self.current)
        self._positions = self._positions[np.argsort(self.rows[self._positions])]
        self.current_rows = self.rows[self._positions]

    def identify(self, row: int, passage: Passage) -> Passage:
        """The passage of a row with its current ids and source."""
        number = int(np.searchsorted(self.current_rows, row))
        if number == len(self.current_rows) or self.current_rows[number] != row:
            return passage
        return replace(self.table[int(self._positions[number])], title=passage.title, text=passage.text)

    def matches(self, column: str, values: Collection[str]) -> NDArray[np.bool_]:
        """Which copies have one of these values in a column, (M,)."""
        matches = np.zeros(len(self.rows), dtype=bool)
        matches[self.table.rows_with(column, values)] = True
        return matches

    def others(self, column: str, values: Collection[str]) -> Iterator[tuple[Passage, int]]:
        """The copies that match and are not current, with their rows."""
        positions = np.flatnonzero(self.matches(column, values) & ~self.current)
        return zip(self.table.take(positions), self.rows[positions].tolist(), strict=True)


class Snapshot:
    """Satisfies `Storage` with a folder. Everything is memory-mapped: it stays readable if its files are deleted.

    ``opened`` segments that the version contains are not opened again.
    """

    def __init__(
        self, layout: Layout, version: str, manifest: Manifest, opened: Sequence[Segment] = ()
    ) -> None:
        self.layout, self.version, self.manifest = layout, version, manifest
        self.location = self.path = layout.root
        shared = {
            layout.segment(record.name).folder: segment
            for record in manifest.segments
            for segment in opened
            # A knowledge base that is built again uses the same names for other files.
            if (segment.record.name, segment.record.files) == (record.name, record.files)
        }
        # Damage is better found now than during a search; the hashes of opened segments were already compared.
        for path, file in self._files():
            if problem := problem_of(path, file, 0 if path.parent in shared else CHECKED_BYTES):
                raise KnowledgeBaseError(
                    f"The knowledge base at {self.path} is damaged: {problem}. {store.ADVICE}"
                )
        files = layout.version(version)
        self.deleted: NDArray[np.int64] = np.asarray(store.read_array(files.deleted, np.int64))
        self.sources: Sources = read_sources(files.sources)
        ends = np.concatenate([[-1], self.deleted, [manifest.rows]])
        if (np.diff(ends) <= 0).any():
            raise store.damaged(files.deleted)
        rows = store.read_array(files.copy_rows, np.int64, ndim=2)
        table = store.PassageTable(files.copies)
        if rows.shape != (len(table), 2) or (rows < 0).any() or (rows[:, 0] >= manifest.rows).any():
            raise store.damaged(files.copy_rows)
        self.copies = Copies(table, rows)
        self._narrowed: dict[str, list[LiveIndex]] = {}
        self._starts: NDArray[np.int64] = np.cumsum([0, *(record.rows for record in manifest.segments)])
        self.segments = []
        for record, deleted in zip(manifest.segments, self.by_segment(self.deleted), strict=True):
            paths = layout.segment(record.name)
            segment = shared.get(paths.folder) or Segment(paths, record, manifest)
            self.segments.append(segment.without(deleted, record))

    @classmethod
    def open(cls, path: Path, version: str | None = None, opened: Sequence[Segment] = ()) -> Self:
        """Open the current version of a knowledge base, or another one; for ``opened``, see `Snapshot`."""
        layout = Layout(path)
        pointer = layout.read_current()
        if version is not None and version not in layout.version_names():
            raise KnowledgeBaseError(
                f"There is no version '{version}' in {path}. 'ragweave versions {path}' lists them."
            )
        name = version or pointer.version
        manifest = Manifest.read(layout.version(name).manifest)
        if version is None and not manifest.checksum.startswith(pointer.checksum):
            raise KnowledgeBaseError(
                f"The pointer {layout.current} is damaged: it does not belong to version {name}. Make a version "
                f"current with 'ragweave rollback {path} VERSION'."
            )
        return cls(layout, name, manifest, opened)

    def latest(self) -> Self:
        """Open the current version; returns this object if it is current. A file that was cut off is an error."""
        pointer = self.layout.read_current()
        # A knowledge base that is built again starts from the same version number, with other content.
        if pointer != Pointer(self.version, self.manifest.checksum[: len(pointer.checksum)]):
            return type(self).open(self.path, opened=self.segments)
        for path, record in self._files():
            if path.is_file() and path.stat().st_size < record.bytes:  # one that was deleted is still mapped
                raise TruncatedFileError(f"The file {path} was cut off while it was in use. {store.ADVICE}")
        return self

    def __len__(self) -> int:
        return self.manifest.passages

    def passage(self, row: int) -> Passage:
        """One passage; raises `IndexError` if the row does not exist."""
        if not 0 <= row < self.manifest.rows:
            raise IndexError(f"There is no passage {row}: rows run from 0 to {self.manifest.rows - 1}.")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.copies.identify(row, self.segments[number].table[row - int(self._starts[number])])

    def document(self, document_id: str) -> list[Passage]:
        """The passages of a document, with their ids, source and places in it, in any order."""
        passages = list(map(self.passage, self.rows_with("document_id", [document_id]).tolist()))
        for other, row in self.copies.others("document_id", [document_id]):
            passage = self.passage(row)
            passages.append(replace(other, title=passage.title, text=passage.text))
        return passages

    def passage_of(self, source: str) -> Passage | None:
        """A passage that was read from a source; ``None`` if there is none."""
        rows = self.rows_with("source", [source])
        return self.passage(int(rows[0])) if len(rows) else None

    def sources_of(self, row: int) -> list[str]:
        """The sources that hold a passage, each once."""
        copies = self.copies.table.take(np.flatnonzero(self.copies.rows == row))
        return list(dict.fromkeys([self.passage(row).source, *(copy.source for copy in copies)]))

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of M rows, (M, D)."""
        vectors = np.empty((len(rows), self.manifest.dimension), dtype=np.float32)
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(numbers):
            here = numbers == number
            vectors[here] = self.segments[number].vectors[rows[here] - self._starts[number]]
        return vectors

    def search(
        self, questions: NDArray[np.float32], n: int, where: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The passages with the largest inner products: scores and rows, (B, K), best first."""
        # One more "segment" of n missing rows, so that K columns remain if there are fewer passages.
        shape = len(questions), n
        results = [(np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64))]
        for start, index in zip(self._starts, self._indexes(where), strict=False):
            # FAISS allocates n results per question, even if there are fewer passages.
            scores, rows = index.search(questions, min(n, len(index.is_live)))
            results.append((scores, np.where(rows < 0, -1, rows + start)))
        scores = np.concatenate([scores for scores, _ in results[::-1]], axis=1)
        rows = np.concatenate([rows for _, rows in results[::-1]], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :n]
        return np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)

    def columns(self) -> list[str]:
        """The names in the metadata of passages, those of deleted ones included."""
        parts = (*(segment.columns for segment in self.segments), self._copied)
        return list(dict.fromkeys(name for part in parts for name in part.names))

    @cached_property
    def _copied(self) -> Columns:
        """The columns of rows whose ids, source and metadata are now those of a copy."""
        batch = store.passage_batch([self.passage(row) for row in self.copies.current_rows.tolist()])
        return Columns(pa.Table.from_batches([batch]))

    def _indexes(self, where: str | None) -> Sequence[LiveIndex]:
        """The index of each segment, narrowed by a condition; those of the last conditions are cached."""
        if where is None:
            return [segment.index for segment in self.segments]
        indexes = self._narrowed.get(where)
        if indexes is None:
            condition = parse(where)
            matches = [np.zeros(0, bool), *(part.columns.matches(condition) for part in self.segments)]
            matched = np.concatenate(matches)
            matched[self.copies.current_rows] = self._copied.matches(condition)
            indexes = [
                segment.index.over(segment.index.is_live & matched[start : start + len(segment)])
                for start, segment in zip(self._starts, self.segments, strict=False)
            ]
            if len(self._narrowed) >= _CONDITIONS:
                self._narrowed = {}
            self._narrowed[where] = indexes
        return indexes

    def text_scorer(self, *, k1: float, b: float, where: str | None = None) -> Callable[[str], RowScores]:
        """A function that scores all rows by BM25 for a question; minus infinity for excluded ones."""
        segments = [segment.postings for segment in self.segments if segment.postings is not None]
        language = self.manifest.language
        if language is None or len(segments) < len(self.segments):
            raise no_words(self.path)
        learned = self._learned_words
        bm25, analyzer = BM25(segments, k1=k1, b=b), Analyzer(language)
        excluded = self.deleted
        if where is not None and segments:
            excluded = np.flatnonzero(~np.concatenate([index.is_live for index in self._indexes(where)]))

        def score(question: str) -> RowScores:
            scores = (
                bm25.scores(analyzer.words(question))
                if learned is None
                else learned.scores(segments, question)
            )
            scores[excluded] = -np.inf
            return RowScores(scores)

        return score

    @cached_property
    def _learned_words(self) -> LearnedWords | None:
        sparse = self.manifest.sparse
        return None if sparse is None else LearnedWords(sparse.load())

    def rows_of(self, names: Collection[str]) -> dict[str, list[int]]:
        """The rows of passages and documents by their ids; if both have the same id, the passage's."""
        rows_of: dict[str, list[int]] = {name: [] for name in names}
        for column in ("id", "document_id"):
            missing = {name for name, rows in rows_of.items() if not rows}
            for row in self.rows_with(column, missing).tolist():
                rows_of[getattr(self.passage(row), column)].append(row)
            for other, row in self.copies.others(column, missing):
                rows_of[getattr(other, column)].append(row)
        return {name: sorted(set(rows)) for name, rows in rows_of.items()}

    def passage_ids(self, names: Collection[str]) -> set[str]:
        """Which names are ids of passages."""
        copies = self.copies.table.take(np.flatnonzero(self.copies.matches("id", names)))
        rows = self.rows_with("id", names).tolist()
        return {passage.id for passage in (*copies, *map(self.passage, rows))}

    def rows_with(self, column: str, values: Collection[str]) -> NDArray[np.int64]:
        """The live rows that have one of these values in a column, ascending."""
        rows = [
            int(start) + row
            for start, segment in zip(self._starts, self.segments, strict=False)
            for row in (segment.table.rows_with(column, values) if values else [])
        ]
        written = np.setdiff1d(np.array(rows, dtype=np.int64), self.copies.current_rows)
        current = self.copies.rows[self.copies.current & self.copies.matches(column, values)]
        return np.setdiff1d(np.union1d(written, current), self.deleted)

    def source_counts(self) -> dict[str, SourceCount]:
        """The sources and their numbers of passages, 0 where all are deleted."""
        counts = {record.source: SourceCount() for record in self.sources.values()}
        excluded = self.by_segment(np.union1d(self.deleted, self.copies.current_rows))
        tables = [segment.table.sources(rows) for segment, rows in zip(self.segments, excluded, strict=True)]
        for source, count, document_id in chain(self.copies.table.sources(), *tables):
            before = counts.get(source, SourceCount())
            counts[source] = SourceCount(before.passages + count, document_id)
        return counts

    def bytes(self) -> int:
        """The size of all files of the version."""
        return sum(record.bytes for _, record in self._files())

    def close(self) -> None:
        """Do nothing: memory maps close with the last reference."""

    def taken_id(self, ids: Collection[str], without: Collection[str]) -> tuple[str, str] | None:
        """A document with one of these ids: its id and source, some sources excluded; ``None`` if there is none."""
        rows = np.setdiff1d(self.rows_with("document_id", ids), self.rows_with("source", without))
        copies = self.copies.matches("document_id", ids) & ~self.copies.matches("source", without)
        passages = self.copies.table.take(np.flatnonzero(copies)[:1])
        passages += [self.passage(int(row)) for row in rows[:1]]
        return (passages[0].document_id, passages[0].source) if passages else None

    def live_hashes(self) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
        """The hashes of live passages and their rows, segment by segment."""
        for segment, start in zip(self.segments, self._starts, strict=False):
            rows = segment.live_rows()
            yield np.asarray(segment.hashes[rows]), rows + start

    def live_shards(self) -> Iterator[tuple[Segment, NDArray[np.int64]]]:
        """The live rows with their segments, a shard at a time."""
        for segment in self.segments:
            rows = segment.live_rows()
            for start in range(0, len(rows), store.SHARD):
                yield segment, rows[start : start + store.SHARD]

    def live_passages(self) -> Iterator[list[Passage]]:
        """The live passages, a shard at a time."""
        starts = dict(zip(self.segments, self._starts.tolist(), strict=False))
        for segment, rows in self.live_shards():
            passages = zip((rows + starts[segment]).tolist(), segment.table.take(rows), strict=True)
            yield [self.copies.identify(row, passage) for row, passage in passages]

    def shards(self) -> Iterator[tuple[list[Passage], NDArray[np.float32]]]:
        """All passages with their vectors, (M, D), a shard at a time."""
        for passages, (segment, rows) in zip(self.live_passages(), self.live_shards(), strict=True):
            yield passages, segment.vectors[rows]

    def _files(self) -> Iterator[tuple[Path, FileRecord]]:
        return files_of(self.layout, self.version, self.manifest)

    def by_segment(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Split ascending rows by segment, each numbered from its start."""
        ends = np.searchsorted(rows, self._starts)
        return [
            rows[first:last] - start
            for first, last, start in zip(ends[:-1], ends[1:], self._starts[:-1], strict=True)
        ]


class Segment:
    """Passages that were written together, with their vectors.

    All files are mapped into memory when the segment is opened, and none is opened by name later. Processes share the
    memory, and the files stay readable for this reader after a compaction deletes them.
    """

    def __init__(self, files: SegmentLayout, record: SegmentRecord, manifest: Manifest) -> None:
        self.record, parameters = record, manifest.index.parameters
        self.table = store.PassageTable(files.passages)
        self.vectors = store.read_array(files.vectors, np.float32, ndim=2)
        self.hashes = store.read_array(files.hashes, np.uint64)
        index = None if record.factory == FLAT else read_index(files.index, parameters)
        self.postings = Postings(files.postings) if files.postings.words.name in record.files else None
        expected = record.rows, (dimension := manifest.dimension)
        shapes = {
            files.passages: (len(self.table), dimension),
            files.vectors: self.vectors.shape,
            files.hashes: (len(self.hashes), dimension),
            files.index: expected if index is None else (index.ntotal, index.d),
            files.postings.lengths: expected if self.postings is None else (len(self.postings), dimension),
        }
        for path, shape in shapes.items():
            if shape != expected:
                raise KnowledgeBaseError(
                    f"The file {path} holds data of shape {shape}, its manifest says {expected}. Build the knowledge "
                    "base again with --overwrite."
                )
        self.index = LiveIndex(
            index, self.vectors, np.ones(record.rows, dtype=bool), parameters, record.breadth
        )

    def __len__(self) -> int:
        return self.record.rows

    @cached_property
    def columns(self) -> Columns:
        """The columns that conditions compare."""
        return Columns(self.table.table)

    def without(self, deleted: NDArray[np.int64], record: SegmentRecord) -> Segment:
        """The same segment as another version sees it, without some rows; nothing is opened again."""
        segment = copy(self)
        segment.record, segment.index = record, self.index.over(self._without(deleted), record.breadth)
        return segment

    def _without(self, deleted: NDArray[np.int64]) -> NDArray[np.bool_]:
        is_live = np.ones(self.record.rows, dtype=bool)
        is_live[deleted] = False
        return is_live

    def live_rows(self) -> NDArray[np.int64]:
        """The rows that are not deleted, ascending."""
        return np.flatnonzero(self.index.is_live)

    def measured_without(
        self, deleted: NDArray[np.int64], record: SegmentRecord, *, least: float
    ) -> SegmentRecord:
        """The record of this segment without some rows, with the recall that its index then has."""
        if not record.is_stale:
            return record
        recall, breadth = self.index.measure(self._without(deleted), least=least)
        return replace(record, recall=recall, breadth=breadth, measured=record.passages)
