"""Fusing rankings of passages into scores that are log-probabilities up to a constant.

A model turns passage scores into p(z|x) by a softmax, so the scores of a fused ranking must be logits.

Notation used for tensor shapes: N rows, K passages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RANK_CONSTANT = 60
"""The constant of reciprocal rank fusion; its authors' value."""


def best(scores: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """Positions of the K largest of N scores, (K,), best first; ties go to the earlier, and -inf never counts."""
    n = min(n, int((scores > -np.inf).sum()))
    if not n:
        return np.zeros(0, np.int64)
    least = np.partition(scores, len(scores) - n)[len(scores) - n]
    above = np.flatnonzero(scores > least)
    top = np.concatenate([above, np.flatnonzero(scores == least)[: n - len(above)]])
    return top[np.lexsort((top, -scores[top]))]


def reciprocal_rank_fusion(
    rankings: Sequence[NDArray[np.int64]], *, constant: int = RANK_CONSTANT
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Fuse rankings by their ranks alone (Cormack, Clarke and Buettcher 2009).

    A row's fused value is the sum of ``1 / (constant + rank)`` over the rankings that contain it. Its score is the
    logarithm of that, so that a softmax makes p(z|x) proportional to the fused value.

    Args:
        rankings: Rows, best first, each once.
        constant: Larger values weigh ranks more evenly.

    Returns:
        All rows, best first, and their scores.
    """
    if not rankings:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    rows, inverse = np.unique(np.concatenate(rankings), return_inverse=True)
    shares = np.concatenate([1 / (constant + 1 + np.arange(len(ranking))) for ranking in rankings])
    fused = np.bincount(inverse, weights=shares, minlength=len(rows))
    order = np.lexsort((rows, -fused))
    return rows[order], np.log(fused[order]).astype(np.float32)
