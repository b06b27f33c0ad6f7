"""One version of a knowledge base, opened: its segments one after the other, as rows from 0 on.

Rows of passages that were deleted are left out of everything that is found, and keep their numbers.

Notation used for tensor shapes: B questions, K passages per question, M rows, N passages, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge import store
from ragweave.knowledge.analyzer import Analyzer
from ragweave.knowledge.bm25 import BM25
from ragweave.knowledge.layout import Layout
from ragweave.knowledge.manifest import FileRecord, Manifest, SegmentRecord
from ragweave.knowledge.segment import Segment
from ragweave.knowledge.source_records import Sources, read_sources
from ragweave.knowledge.storage import RowScores
from ragweave.types import Passage


class Snapshot:
    """What a version holds, mapped into memory at once: it stays readable when its files are deleted.

    Args:
        layout: The knowledge base.
        version: The version's name.
        manifest: What it says that it holds.

    Raises:
        KnowledgeBaseError: A file is missing or damaged.
    """

    def __init__(self, layout: Layout, version: str, manifest: Manifest) -> None:
        self.path = layout.root
        self.manifest = manifest
        self._layout, self._version = layout, version
        self._check_sizes()
        files = layout.version(version)
        self.deleted: NDArray[np.int64] = np.asarray(store.read_array(files.deleted, np.int64))
        self.sources: Sources = read_sources(files.sources)
        self._starts: NDArray[np.int64] = np.cumsum([0, *(record.rows for record in manifest.segments)])
        self.segments = [
            Segment(
                layout.segment(record.name),
                record,
                dimension=manifest.dimension,
                parameters=manifest.index.parameters,
                deleted=own,
            )
            for record, own in zip(manifest.segments, self._by_segment(self.deleted), strict=True)
        ]

    def __len__(self) -> int:
        return self.manifest.passages

    def passage(self, row: int) -> Passage:
        """Look one passage up.

        Raises:
            IndexError: There is no such row.
        """
        if not 0 <= row < self.manifest.rows:
            raise IndexError(f"There is no passage {row}: rows run from 0 to {self.manifest.rows - 1}.")
        number, place = self._place(row)
        return self.segments[number].table[place]

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of M rows, (M, D)."""
        found = np.empty((len(rows), self.manifest.dimension), dtype=np.float32)
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(numbers):
            own = numbers == number
            found[own] = self.segments[number].vectors[rows[own] - self._starts[number]]
        return found

    def search(self, questions: NDArray[np.float32], n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the passages with the largest inner products: scores and rows, (B, K), best first."""
        found = [
            (np.full((len(questions), n), -np.inf, np.float32), np.full((len(questions), n), -1, np.int64))
        ]
        for start, segment in zip(self._starts, self.segments, strict=False):
            # FAISS would reserve room for n hits per question, though there cannot be more than there are passages.
            scores, rows = segment.search(questions, min(n, len(segment)))
            found.append((scores, np.where(rows < 0, -1, rows + start)))
        scores = np.concatenate([own for own, _ in found[::-1]], axis=1)
        rows = np.concatenate([own for _, own in found[::-1]], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :n]
        return np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)

    def text_scorer(self, *, k1: float, b: float) -> Callable[[str], RowScores]:
        """What scores all rows by the words they share with a question; minus infinity where one was deleted.

        Raises:
            KnowledgeBaseError: There are no words to search by.
        """
        segments = [segment.postings for segment in self.segments if segment.postings is not None]
        language = self.manifest.language
        if language is None or len(segments) < len(self.segments):
            raise KnowledgeBaseError(
                f"The knowledge base at {self.path} was built to be searched by vectors alone: build it again with "
                "--overwrite to search it by words too."
            )
        bm25, analyzer = BM25(segments, k1=k1, b=b), Analyzer(language)

        def score(question: str) -> RowScores:
            scores = bm25.scores(analyzer.words(question))
            scores[self.deleted] = -np.inf
            return RowScores(scores)

        return score

    def row_of(self, name: str) -> list[int]:
        """Find the row of a passage, or the rows of a document's passages."""
        rows = self.rows_with("id", [name])
        return (rows if len(rows) else self.rows_with("document_id", [name])).tolist()

    def rows_of(self, names: Collection[str]) -> dict[str, list[int]]:
        """Find the rows of passages and documents by their ids; where both have one, it is the passage's."""
        found: dict[str, list[int]] = {name: [] for name in names}
        for column in ("id", "document_id"):
            wanted = {name for name, rows in found.items() if not rows}
            for row in self.rows_with(column, wanted).tolist():
                found[getattr(self.passage(row), column)].append(row)
        return found

    def rows_with(self, column: str, values: Collection[str]) -> NDArray[np.int64]:
        """The rows that are there and have one of these values in a column, rising."""
        rows = [
            int(start) + row
            for start, segment in zip(self._starts, self.segments, strict=False)
            for row in (segment.table.rows_with(column, values) if values else [])
        ]
        return np.setdiff1d(np.array(rows, dtype=np.int64), self.deleted)

    def documents_among(
        self, names: Collection[str], *, without: NDArray[np.int64]
    ) -> tuple[str, str] | None:
        """The id and the source of a document that is there and is among these, rows apart; ``None`` if none is."""
        rows = np.setdiff1d(self.rows_with("document_id", names), without)
        if not len(rows):
            return None
        passage = self.passage(int(rows[0]))
        return passage.document_id, passage.source

    def hashes_without(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint64]]:
        """The hashes of the passages that are there, but for some rows, segment by segment."""
        for segment, own in zip(self.segments, self._by_segment(rows), strict=True):
            yield np.asarray(segment.hashes[np.setdiff1d(segment.live_rows(), own)])

    def records_without(self, deleted: NDArray[np.int64]) -> tuple[SegmentRecord, ...]:
        """The segments as they are when these rows of all are deleted; counted anew where that is a change."""
        records = []
        for segment, own in zip(self.segments, self._by_segment(deleted), strict=True):
            record = segment.record
            if len(own) != len(segment.deleted):
                documents = segment.table.distinct("document_id", without=own.tolist())
                record = replace(record, passages=record.rows - len(own), documents=len(documents))
            records.append(record)
        return tuple(records)

    def live_shards(self) -> Iterator[tuple[Segment, NDArray[np.int64]]]:
        """The rows that are there, as many at a time as a shard has, with their segment."""
        for segment in self.segments:
            rows = segment.live_rows()
            for start in range(0, len(rows), store.SHARD):
                yield segment, rows[start : start + store.SHARD]

    def verify(self) -> None:
        """Read every byte and compare it with what was written.

        Raises:
            KnowledgeBaseError: A file has changed.
        """
        for path, record in self._files():
            if FileRecord.of(path) != record:
                raise KnowledgeBaseError(
                    f"The file {path} has changed since it was written: restore it from a copy, or build the "
                    "knowledge base again with --overwrite."
                )

    def _files(self) -> Iterator[tuple[Path, FileRecord]]:
        version = self._layout.version(self._version)
        for path in version.data:
            yield path, self.manifest.files.get(path.name, FileRecord(-1, ""))
        for segment in self.manifest.segments:
            for name, record in segment.files.items():
                yield self._layout.segment(segment.name).folder / name, record

    def _check_sizes(self) -> None:
        """Find a file that is missing or cut off at once, and not in the middle of a search."""
        for path, record in self._files():
            size = path.stat().st_size if path.is_file() else None
            if size != record.bytes:
                state = "is missing" if size is None else f"has {size} bytes"
                wanted = "is not in its manifest" if record.bytes < 0 else f"should have {record.bytes} bytes"
                raise KnowledgeBaseError(
                    f"The knowledge base at {self.path} is damaged: {path} {state} and {wanted}. Restore it "
                    "from a copy, or build it again with --overwrite."
                )

    def _place(self, row: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return number, row - int(self._starts[number])

    def _by_segment(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Rising rows, those of each segment, counted from its beginning."""
        ends = np.searchsorted(rows, self._starts)
        return [
            rows[first:last] - start
            for first, last, start in zip(ends[:-1], ends[1:], self._starts[:-1], strict=True)
        ]
