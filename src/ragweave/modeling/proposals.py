"""RAG-Sequence's hypotheses as lists of tokens: what passages propose, equal ones once. No framework here."""

from __future__ import annotations

from collections.abc import Sequence


def proposals(
    passages: list[list[list[int]]],
    real: list[bool],
    pad_token_id: int,
    ends: Sequence[int],
    *,
    deduplicate: bool,
) -> list[tuple[tuple[int, ...], dict[int, int]]]:
    """One question's hypotheses in the order of proposal.

    Args:
        passages: Token ids of R sequences for each of K passages.
        real: Which passages are there; the others propose nothing.
        pad_token_id: What fills sequences up.
        ends: The tokens that end them.
        deduplicate: Keep equal hypotheses once.

    Returns:
        The hypotheses; for each, the passages that proposed it, and which of their R sequences it is.
    """
    found = [
        (_trimmed(row, pad_token_id, ends), k, place)
        for k, rows in enumerate(passages)
        if real[k]
        for place, row in enumerate(rows)
    ]
    if not deduplicate:
        return [(tokens, {passage: place}) for tokens, passage, place in found]
    merged: dict[tuple[int, ...], dict[int, int]] = {}
    for tokens, passage, place in found:
        merged.setdefault(tokens, {}).setdefault(passage, place)
    return list(merged.items())


def _trimmed(row: list[int], pad_token_id: int, ends: Sequence[int]) -> tuple[int, ...]:
    """A hypothesis up to its end token, without padding; the start token may equal either."""
    for position in range(1, len(row)):
        if row[position] in ends:
            return tuple(row[: position + 1])
    length = len(row)
    while length > 1 and row[length - 1] == pad_token_id:
        length -= 1
    return tuple(row[:length])
