"""One segment of a knowledge base, open for reading.

Notation used for tensor shapes: B questions, K passages per question, N rows, D vector size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge import store
from ragweave.knowledge.bm25 import Postings
from ragweave.knowledge.layout import SegmentLayout
from ragweave.knowledge.manifest import SegmentRecord
from ragweave.knowledge.vector_index import FLAT, read_index, search_all


class Segment:
    """Passages that were written together, with their vectors.

    All files are mapped into memory when the segment is opened, and none is opened by name later. The operating
    system shares the memory between processes, and keeps the files alive for this reader after a compaction deletes
    them.

    Args:
        files: Its files.
        record: What it holds.
        dimension: D.
        parameters: Settings of the search.
        deleted: Deleted rows, rising.

    Raises:
        KnowledgeBaseError: A file is damaged.
    """

    def __init__(
        self,
        files: SegmentLayout,
        record: SegmentRecord,
        *,
        dimension: int,
        parameters: dict[str, int],
        deleted: NDArray[np.int64],
    ) -> None:
        self.record = record
        self.deleted = deleted
        self.table = store.PassageTable(files.passages)
        self.vectors = store.read_vectors(files.vectors)
        self.hashes = store.read_array(files.hashes, np.uint64)
        self.index = None if record.factory == FLAT else read_index(files.index, parameters)
        self.postings = Postings(files.postings) if files.postings.words.name in record.files else None
        expected = (record.rows, dimension)
        shapes = {
            files.passages: (len(self.table), dimension),
            files.vectors: self.vectors.shape,
            files.hashes: (len(self.hashes), dimension),
            files.index: expected if self.index is None else (self.index.ntotal, self.index.d),
            files.postings.lengths: expected if self.postings is None else (len(self.postings), dimension),
        }
        for path, shape in shapes.items():
            if shape != expected:
                raise KnowledgeBaseError(
                    f"The file {path} holds data of shape {shape}, its manifest says {expected}. Build the knowledge "
                    "base again with --overwrite."
                )
        self._is_live = np.ones(record.rows, dtype=bool)
        self._is_live[deleted] = False

    def __len__(self) -> int:
        return self.record.rows

    def live_rows(self) -> NDArray[np.int64]:
        """The rows that are not deleted, rising."""
        return np.flatnonzero(self._is_live)

    def search(self, questions: NDArray[np.float32], n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The passages with the largest inner products.

        Args:
            questions: Question vectors, (B, D).
            n: K.

        Returns:
            Scores and rows, (B, K), best first; minus infinity and -1 where there are fewer passages.
        """
        limit = min(n, self.record.passages)
        k, complete = limit, not limit
        scores = np.zeros((len(questions), 0), dtype=np.float32)
        rows = np.zeros((len(questions), 0), dtype=np.int64)
        # Versions share segments, which never change: the index still contains rows that this version has deleted.
        # They are dropped from the results, and the search is repeated with a larger k until every question has
        # enough live rows.
        while not complete:
            if self.index is None:
                scores, rows = search_all(questions, self.vectors, k)
            else:
                scores, rows = self.index.search(questions, k)
            live = (rows >= 0) & self._is_live[rows]
            order = np.argsort(~live, axis=1, kind="stable")[:, :limit]  # live rows first, in their order
            scores = np.take_along_axis(np.where(live, scores, -np.inf), order, 1)
            rows = np.take_along_axis(np.where(live, rows, -1), order, 1)
            complete = k >= len(self) or bool((rows >= 0).all())
            k = min(len(self), 4 * k)
        missing = ((0, 0), (0, n - limit))
        return (
            np.pad(scores.astype(np.float32), missing, constant_values=-np.inf),
            np.pad(rows, missing, constant_values=-1),
        )
