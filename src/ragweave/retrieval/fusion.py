"""Putting several rankings of passages together, with scores that are log-probabilities but for a constant.

A model turns passage scores into p(z|x) by a softmax, so whatever a retriever returns has to mean something there.

Notation used for tensor shapes: N rows, K passages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RANK_CONSTANT = 60
"""How flat reciprocal ranks are; the value of their authors."""


def best(scores: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """The places of the K largest of N scores, (K,), best first; of equal ones the earlier, and none of -inf."""
    n = min(n, int((scores > -np.inf).sum()))
    if not n:
        return np.zeros(0, np.int64)
    least = np.partition(scores, len(scores) - n)[len(scores) - n]
    above = np.flatnonzero(scores > least)
    found = np.concatenate([above, np.flatnonzero(scores == least)[: n - len(above)]])
    return found[np.lexsort((found, -scores[found]))]


def reciprocal_rank_fusion(
    rankings: Sequence[NDArray[np.int64]], *, constant: int = RANK_CONSTANT
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Fuse rankings by the ranks alone (Cormack, Clarke and Buettcher 2009).

    A row's fused value is the sum of ``1 / (constant + rank)`` over the rankings that have it. What is returned is
    its logarithm, so that a softmax gives p(z|x) in proportion to it.

    Args:
        rankings: Rows, best first, each once.
        constant: How flat reciprocal ranks are.

    Returns:
        All rows that occur, best first, and their scores.
    """
    if not rankings:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    rows, places = np.unique(np.concatenate(rankings), return_inverse=True)
    shares = np.concatenate([1 / (constant + 1 + np.arange(len(ranking))) for ranking in rankings])
    fused = np.bincount(places, weights=shares, minlength=len(rows))
    order = np.lexsort((rows, -fused))
    return rows[order], np.log(fused[order]).astype(np.float32)
