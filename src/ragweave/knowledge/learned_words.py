"""Search by words that a sparse encoder weighs, in the files of BM25.

The postings of a segment hold weights in place of counts, as whole numbers. The score of a row is the inner product
of its weights with those of the question.

Notation used for tensor shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragweave.knowledge.bm25 import MAX_COUNT, POSTING, Postings, hashed, weighted_sums

if TYPE_CHECKING:  # brings torch
    from ragweave.encoders.sparse_encoder import SparseEncoder

_STEPS = 1024  # of a weight of 1; weights of more than 64 are cut


class LearnedWords:
    """What an `Analyzer` and `BM25` are for the words of texts, for those of a sparse encoder.

    Args:
        encoder: Weighs words.
    """

    def __init__(self, encoder: SparseEncoder) -> None:
        self._encoder = encoder
        self._hashes = hashed(map(str, range(int(encoder.model.config.vocab_size))))

    def postings(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """How many words each text has, and the postings, sorted by word and row."""
        rows, words, weights = self._encoder.encode(texts)
        counts = np.minimum(np.rint(weights * _STEPS), MAX_COUNT)
        kept = counts > 0
        run = np.empty(int(kept.sum()), POSTING)
        run["word"], run["row"], run["count"] = self._hashes[words[kept]], rows[kept], counts[kept]
        lengths = np.bincount(rows[kept], minlength=len(texts)).astype(np.int32)
        return lengths, run[np.argsort(run["word"], kind="stable")]

    def scores(self, segments: Sequence[Postings], question: str) -> NDArray[np.float32]:
        """Score all rows, (N,)."""
        encoder = self._encoder
        _, words, weights = encoder.encode([question], prompt=encoder.question_prompt)
        slices = [segment.slices(self._hashes[words]) for segment in segments]
        return weighted_sums(segments, slices, weights / _STEPS, lambda _segment, _rows, count: count)
