"""Cutting documents into passages of about so many words, at the ends of sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from ragweave.errors import ConfigurationError
from ragweave.knowledge.passages import Document, Passage
from ragweave.knowledge.sentences import blocks

# A word, or a character of a script that puts no spaces between words. Long runs without a space (addresses,
# encoded data) count by their length, so that they cannot fill a passage beyond what an encoder reads.
_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]{{1,40}}")
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


def chunk(document: Document, *, words: int = 100) -> list[Passage]:
    """Cut a document into disjoint passages that together hold all of it.

    The passages of one document are about equally long: a document of 160 words becomes two of 80, not one
    of 100 and a rest. One that is not longer than one and a half times the budget stays whole, and only a
    sentence longer than that is cut between its words.

    Args:
        document: The document.
        words: About how many words a passage has.

    Returns:
        The passages in reading order; none for a document without text.

    Raises:
        ConfigurationError: ``words`` is below 1.

    Example:
        >>> [passage.id for passage in chunk(Document("a.txt", "A", "One. Two.", "a.txt"), words=1)]
        ['a.txt#0', 'a.txt#1']
    """
    if words < 1:
        raise ConfigurationError(f"A passage of {words} words is not possible: give at least 1.")
    texts = list(_pack(list(_pieces(document.text, words)), words))
    pages = "\f" in document.text
    passages, line, page, seen = [], document.line, 1, 0
    for number, (text, (start, end)) in enumerate(zip(texts, _spans(document.text, texts), strict=True)):
        line += document.text.count("\n", seen, start) if line else 0
        page += document.text.count("\f", seen, start)
        seen = start
        passages.append(
            Passage(
                id=f"{document.id}#{number}",
                document_id=document.id,
                title=document.title,
                text=text,
                source=document.source,
                start=start,
                end=end,
                line=line,
                page=page if pages else 0,
            )
        )
    return passages


def _spans(whole: str, texts: list[str]) -> Iterator[tuple[int, int]]:
    """Where texts begin and end in the one that they were cut from, which differs from them in white space alone."""
    place = 0
    for text in texts:
        start = -1
        for word in text.split():
            place = whole.index(word, place)
            start = place if start < 0 else start
            place += len(word)
        yield start, place


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
    found = list(_WORD.finditer(sentence))
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
