"""Passages of exactly so many words, as the paper cut Wikipedia."""

from __future__ import annotations

from collections.abc import Iterator

from ragweave.knowledge.ingest.chunking.cuts import WORD, Cut


def by_words(text: str, words: int) -> Iterator[Cut]:
    """Cut a text after every so many words; the last piece has what is left."""
    found = list(WORD.finditer(text))
    for first in range(0, len(found), words):
        start, end = found[first].start(), found[min(first + words, len(found)) - 1].end()
        yield Cut(start, end, " ".join(text[start:end].split()))
