"""What reading a knowledge base needs, wherever its passages are.

Notation used for tensor shapes: B questions, K passages per question, M rows, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

from ragweave.knowledge.passages import Passage
from ragweave.knowledge.search import WordScores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Reader(Protocol):
    """Passages and vectors by their rows, and what finds these."""

    def passage(self, row: int) -> Passage:
        """Look one passage up.

        Raises:
            IndexError: There is no such row.
        """
        ...

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of M rows, (M, D)."""
        ...

    def search(self, questions: NDArray[np.float32], n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the passages with the largest inner products: scores and rows, (B, K), best first."""
        ...

    def text_scorer(self, *, k1: float, b: float) -> Callable[[str], WordScores]:
        """What scores passages by the words they share with a question.

        Raises:
            KnowledgeBaseError: There are no words to search by.
        """
        ...

    def rows_of(self, names: Collection[str]) -> dict[str, list[int]]:
        """Find the rows of many passages and documents; those of names that are not there are empty."""
        ...

    def row_of(self, name: str) -> list[int]:
        """Find the row of a passage, or the rows of a document's passages."""
        ...
