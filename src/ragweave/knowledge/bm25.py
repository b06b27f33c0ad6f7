"""BM25 over the postings of any number of segments, with the statistics of all of them.

Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", in the form that Lucene
computes. Scores are made when a question is asked: a segment that is added changes how rare a word is in all others.

Notation used for tensor shapes: N rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError
from ragweave.knowledge.analyzer import hashed
from ragweave.knowledge.postings import Postings


class BM25:
    """Scores rows by the words they share with a question.

    Args:
        segments: Postings, whose rows follow each other.
        k1: How soon further occurrences of a word cease to count.
        b: How much the length of a passage counts, from 0 to 1. The defaults of both are those usual for short
            passages (Yang, Fang and Lin 2017, "Anserini").

    Raises:
        ConfigurationError: ``k1`` is below 0, or ``b`` is not between 0 and 1.
    """

    def __init__(self, segments: Sequence[Postings], *, k1: float = 0.9, b: float = 0.4) -> None:
        if not (k1 >= 0 and math.isfinite(k1)):
            raise ConfigurationError(f"k1 is {k1}: give 0 or more.")
        if not 0 <= b <= 1:
            raise ConfigurationError(f"b is {b}: give a number from 0 to 1.")
        self.segments = segments
        self._count = sum(map(len, segments))
        mean = sum(int(own.lengths.sum(dtype=np.int64)) for own in segments) / max(self._count, 1)
        self._damping = [
            (k1 * (1 - b + b * own.lengths / (mean or 1.0))).astype(np.float32) for own in segments
        ]

    def scores(self, words: Sequence[str]) -> NDArray[np.float32]:
        """Score all rows, (N,): 0 where a row has none of the words.

        Args:
            words: The question's; one that occurs twice counts twice.
        """
        distinct, times = np.unique(hashed(words), return_counts=True)
        places = [own.places(distinct) for own in self.segments]
        rows_with = [sum(place.stop - place.start for place in own) for own in zip(*places, strict=True)]
        weights = times * np.array([rarity(self._count, rows) for rows in rows_with])
        scores = []
        for segment, damping, own in zip(self.segments, self._damping, places, strict=True):
            total = np.zeros(len(segment), dtype=np.float32)
            for place, weight in zip(own, weights, strict=True):
                rows = segment.rows[place]
                counts = segment.counts[place].astype(np.float32)
                total[rows] += np.float32(weight) * (counts / (counts + damping[rows]))
            scores.append(total)
        return np.concatenate(scores) if scores else np.zeros(0, np.float32)


def rarity(count: int, rows: int) -> float:
    """The inverse document frequency of a word that occurs in so many rows of so many."""
    return math.log1p((count - rows + 0.5) / (rows + 0.5))
