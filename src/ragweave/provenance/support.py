"""Which words of a passage an answer repeats.

Words are compared without regard to case and to what stands between them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive words of a text.

    Attributes:
        words: How many.
        start: Where they begin, in characters.
        end: Where they end.
    """

    words: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Word:
    form: str
    start: int
    end: int


def supporting_runs(answer: str, text: str) -> list[Run | None]:
    """Find what an answer repeats of a text.

    Args:
        answer: The answer.
        text: A passage's text, or its title.

    Returns:
        For every character of the answer: where in the text the longest run of the answer's words stands that
        has the word of this character in it (the first of several); ``None`` between words, and for words
        that the text does not have.
    """
    own = _words(answer)
    found: list[Run | None] = [None] * len(answer)
    for word, run in zip(own, _longest_runs(own, _words(text)), strict=True):
        found[word.start : word.end] = [run] * (word.end - word.start)
    return found


def _words(text: str) -> list[_Word]:
    return [_Word(word.group().casefold(), *word.span()) for word in _WORD.finditer(text)]


def _longest_runs(answer: Sequence[_Word], text: Sequence[_Word]) -> list[Run | None]:
    """For every word of the answer, the longest run around it that stands in the text."""
    places = defaultdict(list)
    for place, word in enumerate(text):
        places[word.form].append(place)
    best: list[Run | None] = [None] * len(answer)
    for begin, word in enumerate(answer):
        for place in places.get(word.form, ()):
            if begin and place and answer[begin - 1].form == text[place - 1].form:
                continue  # the middle of a run that was looked at already
            length = 1
            while (
                begin + length < len(answer)
                and place + length < len(text)
                and answer[begin + length].form == text[place + length].form
            ):
                length += 1
            run = Run(length, text[place].start, text[place + length - 1].end)
            for number in range(begin, begin + length):
                known = best[number]
                if known is None or (-run.words, run.start) < (-known.words, known.start):
                    best[number] = run
    return best
