"""What reading a knowledge base needs, wherever its passages are.

Notation used for tensor shapes: B questions, K passages per question, M rows, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ragweave.retrieval.fusion import best
from ragweave.types import Passage


class WordScores(Protocol):
    """What passages score for the words they share with one question."""

    def best(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most K rows, best first, and their scores; who shares no word may be left out."""
        ...

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of M rows, (M,), 0 for those that share no word."""
        ...


@dataclass(frozen=True, slots=True)
class RowScores:
    """Satisfies `WordScores` with the scores of all rows.

    Attributes:
        values: (N,), minus infinity for rows that are not there.
    """

    values: NDArray[np.float32]

    def best(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most K rows, best first, and their scores."""
        rows = best(self.values, n)
        return rows, self.values[rows]

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of M rows, (M,)."""
        return self.values[rows]


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
