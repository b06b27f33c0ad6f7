"""What every way of chunking yields: a run of a document's text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

# A word, or a character of a script that puts no spaces between words. Long runs without a space (addresses,
# encoded data) count by their length, so that they cannot fill a passage beyond what an encoder reads.
_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]{{1,40}}")


@dataclass(frozen=True, slots=True)
class Cut:
    """A run of a document's text.

    Attributes:
        start: Where it begins there, in characters.
        end: Where it ends.
        text: What the passage says, which differs from the run in white space alone.
        title: Its own title; ``None`` for the document's.
    """

    start: int
    end: int
    text: str
    title: str | None = None

    def moved(self, by: int, title: str | None) -> Cut:
        """The same run in a text that has so many characters before it."""
        return replace(self, start=self.start + by, end=self.end + by, title=title)


def placed(whole: str, texts: Iterable[str]) -> Iterator[Cut]:
    """Find out where texts begin and end in the one they come from, in whose order they are."""
    place = 0
    for text in texts:
        start = -1
        for word in text.split():
            place = whole.index(word, place)
            start = place if start < 0 else start
            place += len(word)
        yield Cut(start, place, text)


def overlapping(whole: str, cuts: Iterable[Cut], words: int) -> Iterator[Cut]:
    """Let each cut begin with the last words of the one before it."""
    before: Cut | None = None
    for cut in cuts:
        if before is None or not words:
            yield cut
        else:
            found = list(WORD.finditer(whole, before.start, before.end))[-words:]
            start = found[0].start() if found else cut.start
            repeated = " ".join(whole[start : before.end].split())
            yield replace(cut, start=start, text=f"{repeated} {cut.text}")
        before = cut
