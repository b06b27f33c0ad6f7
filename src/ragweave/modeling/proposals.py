"""RAG-Sequence's hypotheses: the distinct proposals of a question's passages. Imports neither torch nor TensorFlow.

Notation used for array shapes
    B questions, K passages per question, R proposals per passage, C distinct hypotheses per question,
    T tokens including the start token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = TypeVar("Array")


class Proposals(NamedTuple, Generic[Array]):
    """Distinct hypotheses of B questions in the order of proposal, padded to the largest C.

    Attributes:
        token_ids: (B, C, T), padded on the right.
        lengths: Number of tokens of each, start token included, (B, C); 0 for padding.
        proposal: Which of passage k's R proposals hypothesis c is, (B, K, C); -1 if k did not propose it.
    """

    token_ids: Array
    lengths: Array
    proposal: Array


def collect_proposals(
    sequences: Sequence[Sequence[Sequence[Sequence[int]]]],
    has_passage: Sequence[Sequence[bool]],
    pad_token_id: int,
    ends: Sequence[int],
    *,
    deduplicate: bool,
) -> Proposals[NDArray[np.int64]]:
    """Collect the hypotheses of each question.

    Args:
        sequences: Token ids, (B, K, R, T); T may differ.
        has_passage: Which passages exist, (B, K); the others propose nothing.
        pad_token_id: The token that pads rows.
        ends: The tokens that end sequences.
        deduplicate: Keep equal hypotheses of a question once.
    """
    questions: list[dict[tuple[Any, ...], dict[int, int]]] = []
    for passages, exists in zip(sequences, has_passage, strict=True):
        hypotheses: dict[tuple[Any, ...], dict[int, int]] = {}
        for k, rows in enumerate(passages):
            for r, row in enumerate(rows if exists[k] else ()):
                tokens = _strip(row, pad_token_id, ends)
                key = (tokens,) if deduplicate else (tokens, k, r)
                hypotheses.setdefault(key, {}).setdefault(k, r)
        questions.append(hypotheses)
    count = max(1, *map(len, questions))
    longest = max(len(row) for passages in sequences for rows in passages for row in rows)
    token_ids = np.full((len(questions), count, longest), pad_token_id)
    lengths = np.zeros((len(questions), count), dtype=np.int64)
    proposal = np.full((len(questions), len(has_passage[0]), count), -1)
    for b, hypotheses in enumerate(questions):
        for c, ((tokens, *_), proposers) in enumerate(hypotheses.items()):
            token_ids[b, c, : len(tokens)] = tokens
            lengths[b, c] = len(tokens)
            for k, r in proposers.items():
                proposal[b, k, c] = r
    return Proposals(token_ids, lengths, proposal)


def _strip(row: Sequence[int], pad_token_id: int, ends: Sequence[int]) -> tuple[int, ...]:
    """A sequence up to its end token, without padding; the start token may equal either."""
    for position in range(1, len(row)):
        if row[position] in ends:
            return tuple(row[: position + 1])
    length = len(row)
    while length > 1 and row[length - 1] == pad_token_id:
        length -= 1
    return tuple(row[:length])
