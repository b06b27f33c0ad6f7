"""Search by words in Milvus: its own BM25, over words that were taken apart as for a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ragweave.knowledge.databases.milvus.collections import K1, MOST_FOUND

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class MilvusWordScores:
    """Satisfies `WordScores`.

    Args:
        search: Searches for words: a text and K; gives rows and scores as Milvus has them.
        words: The words of a question.
    """

    def __init__(self, search: Callable[[str, int], list[tuple[int, float]]], words: Sequence[str]) -> None:
        self._search, self._text = search, " ".join(words)

    def best(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most K rows that share a word, best first, and their scores."""
        import numpy as np

        found = sorted(self._scored(n).items(), key=lambda hit: (-hit[1], hit[0]))
        return (
            np.array([row for row, _ in found], dtype=np.int64),
            np.array([score for _, score in found], dtype=np.float32),
        )

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of M rows, (M,), 0 for those that share no word, or are behind the best 16,384."""
        import numpy as np

        # Not of these rows alone: of rows that a filter picks, Milvus Lite says how rare a word is among them.
        scores = self._scored(MOST_FOUND)
        return np.array([scores.get(row, 0.0) for row in rows.tolist()], dtype=np.float32)

    def _scored(self, n: int) -> dict[int, float]:
        if not self._text or not n:
            return {}
        # Milvus leaves the factor (k1 + 1) in, which Lucene and a folder leave out, and Milvus Lite turns the sign.
        found = ((row, abs(score) / (K1 + 1)) for row, score in self._search(self._text, n))
        return {row: score for row, score in found if score > 0}
