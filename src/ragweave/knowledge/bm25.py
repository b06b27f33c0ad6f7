"""BM25 over the postings of any number of segments, with the statistics of all of them.

Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", in the form that Lucene
computes. Weights are computed per question, because a new segment changes how rare a word is in all others.

Notation used for tensor shapes: N rows, M of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge.analyzer import hashed
from ragweave.knowledge.postings import Postings
from ragweave.retrieval.fusion import best


class BM25:
    """Scores rows by the words they share with a question.

    Args:
        segments: Postings, whose rows follow one another.
        k1: How soon further occurrences of a word cease to count.
        b: How much the length of a passage counts, from 0 to 1. Both defaults are usual for short passages (Yang,
            Fang and Lin 2017, "Anserini").

    Raises:
        ConfigurationError: ``k1`` or ``b`` is out of range.
    """

    def __init__(self, segments: Sequence[Postings], *, k1: float = 0.9, b: float = 0.4) -> None:
        check_parameters(k1, b)
        self.segments = segments
        self._count = sum(map(len, segments))
        mean = sum(int(segment.lengths.sum(dtype=np.int64)) for segment in segments) / max(self._count, 1)
        self._length_norms = [
            (k1 * (1 - b + b * segment.lengths / (mean or 1.0))).astype(np.float32) for segment in segments
        ]

    def scores(self, words: Sequence[str]) -> NDArray[np.float32]:
        """Score all rows, (N,): 0 for rows without any of the words.

        Args:
            words: The question's words; a word that occurs twice counts twice.
        """
        distinct, counts = np.unique(hashed(words), return_counts=True)
        slices = [segment.slices(distinct) for segment in self.segments]
        frequencies = [sum(part.stop - part.start for part in parts) for parts in zip(*slices, strict=True)]
        weights = counts * np.array([idf(self._count, frequency) for frequency in frequencies])
        scores = []
        for segment, norms, parts in zip(self.segments, self._length_norms, slices, strict=True):
            total = np.zeros(len(segment), dtype=np.float32)
            for part, weight in zip(parts, weights, strict=True):
                rows = segment.rows[part]
                tf = segment.counts[part].astype(np.float32)
                total[rows] += np.float32(weight) * (tf / (tf + norms[rows]))
            scores.append(total)
        return np.concatenate(scores) if scores else np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True)
class RowScores:
    """The scores of all rows; satisfies `WordScores`.

    Attributes:
        values: (N,), minus infinity for deleted rows.
    """

    values: NDArray[np.float32]

    def best(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most K rows, best first, and their scores."""
        rows = best(self.values, n)
        return rows, self.values[rows]

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of M rows, (M,)."""
        return self.values[rows]


def check_parameters(k1: float, b: float) -> None:
    """Raise `ConfigurationError` if a parameter of BM25 is out of range."""
    if not (k1 >= 0 and math.isfinite(k1)):
        raise ConfigurationError(f"k1 is {k1}. Give 0 or more.")
    if not 0 <= b <= 1:
        raise ConfigurationError(f"b is {b}. Give a number from 0 to 1.")


def no_words(location: object) -> KnowledgeBaseError:
    """The error for BM25 in a knowledge base that was built without words."""
    return KnowledgeBaseError(
        f"The knowledge base at {location} was built to be searched by vectors alone. Build it again with "
        "--overwrite to search it by words."
    )


def idf(count: int, frequency: int) -> float:
    """The inverse document frequency of a word that occurs in so many of N rows."""
    return math.log1p((count - frequency + 0.5) / (frequency + 0.5))
