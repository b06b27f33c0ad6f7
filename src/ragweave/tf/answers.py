"""Answers of searches as tensors.

Notation used for tensor shapes
    B questions, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from ragweave.tf.search import Answer


def padded(answers: Sequence[Sequence[Answer]], wanted: int, pad: int) -> Any:
    """Token ids, (B*wanted, T), T the longest of them; rows of padding where there are fewer answers."""
    rows = [own.tokens for question in answers for own in _filled(question, wanted)]
    tokens = np.full((len(rows), max(map(len, rows))), pad, dtype=np.int32)
    for row, own in zip(tokens, rows, strict=True):
        row[: len(own)] = own
    return ops.convert_to_tensor(tokens)


def scores_of(answers: Sequence[Sequence[Answer]], wanted: int) -> Any:
    """What answers were ranked by, (B*wanted,); -inf where there are fewer."""
    scores = [own.score for question in answers for own in _filled(question, wanted)]
    return ops.convert_to_tensor(np.array(scores, dtype=np.float32))


def _filled(answers: Sequence[Answer], wanted: int) -> list[Answer]:
    missing = max(wanted - len(answers), 0)
    return [*answers[:wanted], *[Answer((), (), float("-inf"))] * missing]
