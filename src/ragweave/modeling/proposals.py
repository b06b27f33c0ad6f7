"""RAG-Sequence's hypotheses: the distinct proposals of a question's passages. Imports neither torch nor TensorFlow.

Notation used for array shapes
    B questions, K passages per question, R proposals per passage, C distinct hypotheses per question,
    T tokens including the start token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class Proposals(NamedTuple):
    """Distinct hypotheses of B questions in the order of proposal, padded to the largest C.

    Attributes:
        token_ids: (B, C, T), padded on the right.
        lengths: Number of tokens of each, start token included, (B, C); 0 where there is none.
        proposal: Which of passage k's R proposals hypothesis c is, (B, K, C); -1 where k did not propose it.
    """

    token_ids: Ids
    lengths: Ids
    proposal: Ids


def collect_proposals(
    sequences: Sequence[Sequence[Sequence[Sequence[int]]]],
    has_passage: Sequence[Sequence[bool]],
    pad_token_id: int,
    ends: Sequence[int],
    *,
    deduplicate: bool,
) -> Proposals:
    """Collect the hypotheses of each question.

    Args:
        sequences: Token ids, (B, K, R, T); T may differ.
        has_passage: Which passages exist, (B, K); the others propose nothing.
        pad_token_id: The token that fills rows.
        ends: The tokens that end sequences.
        deduplicate: Keep equal hypotheses of a question once.
    """
    questions = [
        _of_question(passages, exists, pad_token_id, ends, deduplicate=deduplicate)
        for passages, exists in zip(sequences, has_passage, strict=True)
    ]
    count = max(1, *map(len, questions))
    longest = max(len(row) for passages in sequences for rows in passages for row in rows)
    token_ids = np.full((len(questions), count, longest), pad_token_id)
    lengths = np.zeros((len(questions), count), dtype=np.int64)
    proposal = np.full((len(questions), len(has_passage[0]), count), -1)
    for b, hypotheses in enumerate(questions):
        for c, (tokens, proposers) in enumerate(hypotheses):
            token_ids[b, c, : len(tokens)] = tokens
            lengths[b, c] = len(tokens)
            for k, r in proposers.items():
                proposal[b, k, c] = r
    return Proposals(token_ids, lengths, proposal)


def _of_question(
    passages: Sequence[Sequence[Sequence[int]]],
    has_passage: Sequence[bool],
    pad_token_id: int,
    ends: Sequence[int],
    *,
    deduplicate: bool,
) -> list[tuple[tuple[int, ...], dict[int, int]]]:
    """One question's hypotheses; for each, the passages that proposed it, and which of their R sequences it is."""
    proposed = [
        (_trimmed(row, pad_token_id, ends), k, r)
        for k, rows in enumerate(passages)
        if has_passage[k]
        for r, row in enumerate(rows)
    ]
    if not deduplicate:
        return [(tokens, {k: r}) for tokens, k, r in proposed]
    merged: dict[tuple[int, ...], dict[int, int]] = {}
    for tokens, k, r in proposed:
        merged.setdefault(tokens, {}).setdefault(k, r)
    return list(merged.items())


def _trimmed(row: Sequence[int], pad_token_id: int, ends: Sequence[int]) -> tuple[int, ...]:
    """A hypothesis up to its end token, without padding; the start token may equal either."""
    for position in range(1, len(row)):
        if row[position] in ends:
            return tuple(row[: position + 1])
    length = len(row)
    while length > 1 and row[length - 1] == pad_token_id:
        length -= 1
    return tuple(row[:length])
