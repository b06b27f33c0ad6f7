"""One segment of a knowledge base, open for reading.

Notation used for tensor shapes: B questions, K passages per question, N rows, D vector size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge import store
from ragweave.knowledge.layout import SegmentLayout
from ragweave.knowledge.manifest import SegmentRecord
from ragweave.knowledge.postings import Postings
from ragweave.knowledge.vector_index import FLAT, read_index, search_all


class Segment:
    """Passages that were written together, with their vectors, mapped into memory.

    Everything is opened at once, so that it can be read on after its files were deleted.

    Args:
        files: Where it is.
        record: What it holds.
        dimension: D.
        parameters: Settings of the search.
        deleted: Rows that are no longer there, rising.

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
                    f"The file {path} holds data of shape {shape}, its manifest says {expected}: build the "
                    "knowledge base again with --overwrite."
                )
        self._gone = np.zeros(record.rows, dtype=bool)
        self._gone[deleted] = True

    def __len__(self) -> int:
        return self.record.rows

    def live_rows(self) -> NDArray[np.int64]:
        """The rows that were not deleted, rising."""
        return np.flatnonzero(~self._gone)

    def search(self, questions: NDArray[np.float32], n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the passages with the largest inner products.

        Args:
            questions: Question vectors, shape (B, D).
            n: How many passages per question, K.

        Returns:
            Scores and rows, shape (B, K), best first; minus infinity and -1 where there are fewer.
        """
        wanted = min(n, self.record.passages)
        asked, enough = wanted, not wanted
        scores = np.zeros((len(questions), 0), dtype=np.float32)
        rows = np.zeros((len(questions), 0), dtype=np.int64)
        # Deleted passages are among what is found: ask for more until enough others are.
        while not enough:
            scores, rows = self._found(questions, asked)
            there = (rows >= 0) & ~self._gone[rows]
            order = np.argsort(~there, axis=1, kind="stable")[:, :wanted]  # those that are there first
            scores = np.take_along_axis(np.where(there, scores, -np.inf), order, 1)
            rows = np.take_along_axis(np.where(there, rows, -1), order, 1)
            enough = asked >= len(self) or bool((rows >= 0).all())
            asked = min(len(self), 4 * asked)
        missing = ((0, 0), (0, n - wanted))
        return (
            np.pad(scores.astype(np.float32), missing, constant_values=-np.inf),
            np.pad(rows, missing, constant_values=-1),
        )

    def _found(self, questions: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if self.index is None:
            return search_all(questions, self.vectors, k)
        scores, rows = self.index.search(questions, k)
        return scores, rows
