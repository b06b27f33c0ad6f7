"""Passages of about so many words, at the ends of sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from ragweave.knowledge.ingest.chunking.cuts import WORD, Cut, placed
from ragweave.knowledge.ingest.chunking.sentences import blocks

_TOLERANCE = 1.5


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sentence or a part of one: what is never cut.

    Attributes:
        text: Its words.
        words: How many there are.
        separator: What stands between it and the piece before.
    """

    text: str
    words: int
    separator: str


def by_sentences(text: str, words: int) -> Iterator[Cut]:
    """Cut a text into disjoint pieces that together hold all of it.

    The pieces are about equally long: a text of 160 words becomes two of 80, not one of 100 and a rest. One that is
    not longer than one and a half times the budget stays whole, and only a sentence longer than that is cut between
    its words.

    Args:
        text: The text.
        words: About how many words a piece has.
    """
    return placed(text, list(_pack(list(_pieces(text, words)), words)))


def _pieces(text: str, words: int) -> Iterator[_Piece]:
    """Yield the sentences of a text, and those that are too long in parts."""
    for sentences in blocks(text):
        separator = "\n"
        for sentence in sentences:
            for part, count in _split_long(sentence, words):
                yield _Piece(text=part, words=count, separator=separator)
                separator = " "


def _split_long(sentence: str, words: int) -> Iterator[tuple[str, int]]:
    """Cut a sentence longer than one and a half budgets into equal parts; yield any other as it is."""
    found = list(WORD.finditer(sentence))
    if len(found) <= _TOLERANCE * words:
        yield sentence, len(found)
        return
    parts = -(-len(found) // words)
    bounds = [len(found) * part // parts for part in range(parts + 1)]
    for first, end in pairwise(bounds):
        yield sentence[found[first].start() : found[end - 1].end()], end - first


def _pack(pieces: list[_Piece], words: int) -> Iterator[str]:
    """Join pieces to texts whose lengths come as near to each other as the pieces allow."""
    left = sum(piece.words for piece in pieces)
    chosen: list[_Piece] = []
    count = 0
    target = _target(left, words)
    for piece in pieces:
        too_long = count + piece.words > _TOLERANCE * words
        # Stop where one more piece would lead further beyond the target than stopping stays below it.
        if chosen and (too_long or count + piece.words - target > target - count):
            yield _join(chosen)
            left -= count
            chosen, count = [], 0
            target = _target(left, words)
        chosen.append(piece)
        count += piece.words
    if chosen:
        yield _join(chosen)


def _target(left: int, words: int) -> float:
    """The length of the next passage if all that are left become equally long."""
    if left <= _TOLERANCE * words:
        return float("inf")
    return left / max(1, round(left / words))


def _join(pieces: list[_Piece]) -> str:
    return pieces[0].text + "".join(piece.separator + piece.text for piece in pieces[1:])
