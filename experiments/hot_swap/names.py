"""Names of places and persons: their words, and their occurrences in a text.

The Factbook writes surnames in capitals: ``Emmanuel MACRON``, ``LULA da Silva``. Texts are searched without accents
(`fold`), because the Factbook contains both ``Brasília`` and ``Brasilia``.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

PARTICLES = frozenset(
    {"abu", "al", "an", "ben", "bin", "bint", "da", "de", "del", "der", "di", "dos", "du", "el", "ibn", "ibni", "la",
     "le", "of", "ould", "the", "van", "von", "wa"}
)  # fmt: skip
"""Small words of names, which are not names by themselves."""

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
"""A word of letters, with apostrophes inside: ``Nuku'alofa``."""

_LETTERS = re.compile(r"[^\W\d_]+")
_NUMERAL = re.compile(r"[IVX]+")


@dataclass(frozen=True, slots=True)
class Name:
    """A name and how to find its mentions.

    Attributes:
        text: The name, as the Factbook writes it.
        pattern: Regular expression of its mentions in a text without accents.
        key: Letters that every mention holds, in lower case.
        surname: A person's surname without accents; empty for a place.
    """

    text: str
    pattern: str
    key: str
    surname: str = ""


def place_name(text: str) -> Name:
    """Makes the name of a place; all mentions are in full, in any case.

    Args:
        text: The name.
    """
    return Name(text, rf"(?<!\w)(?i:{re.escape(fold(text))})(?!\w)", _longest_word(text))


def person_name(text: str) -> Name | None:
    """Makes the name of a person; mentions are in full, or the surname alone, or with some of the other words.

    Args:
        text: The name, with the surname in capitals.

    Returns:
        The name, or None if nothing in it is in capitals.
    """
    words = fold(text).split()
    start = next((place for place, word in enumerate(words) if _in_capitals(word)), len(words))
    end = start
    while end < len(words) and (_in_capitals(words[end]) or is_numeral(words[end])):
        end += 1
    if start == end:
        return None
    surname = " ".join(words[start:end])
    pattern = (
        "".join(rf"(?:{re.escape(word)} )?" for word in words[:start])
        + re.escape(surname)
        + "".join(rf"(?: {re.escape(word)})?" for word in words[end:])
    )
    if len(words) > 1:  # one word in another case may be anybody's
        pattern = rf"(?:(?i:{re.escape(' '.join(words))})|{pattern})"
    return Name(text, rf"(?<!\w){pattern}(?!\w)", _longest_word(surname), surname)


def _in_capitals(word: str) -> bool:
    return re.search(r"[A-Z]{2}", word) is not None and not is_numeral(word)


def is_numeral(word: str) -> bool:
    """Tells whether a word is the number of a monarch, such as ``III``."""
    return _NUMERAL.fullmatch(word) is not None


def _longest_word(text: str) -> str:
    return max(letters_of(text), key=len)


def letters_of(text: str) -> list[str]:
    """Lists the runs of letters in a text, without accents and in lower case."""
    return _LETTERS.findall(fold(text).lower())


def words_of(name: str) -> list[str]:
    """Lists the words of a name that say who or what is named: no particles, initials and numerals.

    Args:
        name: A name, such as ``Luiz Inácio LULA da Silva``.
    """
    return [
        word
        for word in WORD.findall(name)
        if len(word) > 1 and word.lower() not in PARTICLES and not is_numeral(word)
    ]


def fold(text: str) -> str:
    """Takes the accents off letters; every character keeps its place.

    Args:
        text: Any text in composed form (NFC).
    """
    return text.translate({ord(letter): _base(letter) for letter in set(text) if not letter.isascii()})


def _base(letter: str) -> str:
    bases = [part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part)]
    return bases[0] if len(bases) == 1 else letter
