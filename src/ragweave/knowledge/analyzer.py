"""The words of a text, as BM25 compares them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import regex
import Stemmer
from icu4py.breakers import WordBreaker
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError
from ragweave.knowledge.ingest_settings import ANALYZER_VERSION

NO_LANGUAGE = "none"
"""The language of words that are neither stemmed nor filtered."""

UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Chinese and Japanese, in a set of a regular expression: without spaces between words, every character is a word."""

# Scripts without spaces whose words a dictionary finds.
_DICTIONARY = r"[[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]--\p{P}]"
# Runs of letters and digits with their combining marks, which are half of the vowels of Hindi, Tamil or Thai.
_WORD = regex.compile(
    rf"[{UNSPACED}]|(?P<run>{_DICTIONARY}+)"
    rf"|(?:(?!{_DICTIONARY})[\p{{L}}\p{{N}}--[{UNSPACED}]][\p{{M}}]*)+",
    regex.V1,
)
# Letters with and without points of Hebrew or vowel signs of Arabic are the same word; so are words with and without
# soft hyphens and joiners. Lower case gives the Turkish capital I a dot of its own.
_LEFT_OUT = regex.compile(
    r"(?<=\p{Hebrew})[\p{M}]+|(?<=\p{Arabic})[\p{M}\u0640]+|[\u00ad\u200c\u200d]|(?<=i)\u0307", regex.V1
)
_LETTERS_ALONE = 10
"""A run of a dictionary's script up to this length is one word, as it is in a question."""

# The rules of version 1, by which combining marks separate words; for ASCII they are those of version 2.
_WORD_OF_VERSION_1 = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")

_ENGLISH_STOP_WORDS = frozenset(
    _WORD_OF_VERSION_1.findall(
        "a an and are as at be but by did do does for from had has have he her his how i if in into is it its no not "
        "of on or our she so such that the their then there these they this to us was we were what when where which "
        "who whom whose why will with you your"
    )
)


class Analyzer:
    """Splits texts into words: lower case, stemmed, without stop words.

    Args:
        language: A language of the Snowball stemmers, such as ``"english"``, or ``"none"``.
        version: The version of the rules, which a knowledge base keeps until it is built again.

    Raises:
        ConfigurationError: There is no stemmer for the language.
    """

    def __init__(self, language: str = "english", version: int = ANALYZER_VERSION) -> None:
        if language != NO_LANGUAGE and language not in Stemmer.algorithms():
            raise ConfigurationError(
                f"There is no stemmer for the language {language!r}. Choose {NO_LANGUAGE} or one of "
                f"{', '.join(sorted(Stemmer.algorithms()))}."
            )
        self.language = language
        self._version = version
        self._stem = None if language == NO_LANGUAGE else Stemmer.Stemmer(language).stemWords
        self._stop_words = _ENGLISH_STOP_WORDS if language == "english" else frozenset()

    def words(self, text: str) -> list[str]:
        """The words of a text in their order."""
        text = unicodedata.normalize("NFKC", text).casefold()
        simple = self._version == 1 or text.isascii()
        words = _WORD_OF_VERSION_1.findall(text) if simple else list(_words(text))
        if self._stop_words:
            words = [word for word in words if word not in self._stop_words]
        return words if self._stem is None else self._stem(words)


def _words(text: str) -> Iterator[str]:
    for match in _WORD.finditer(_LEFT_OUT.sub("", text)):
        run = match["run"]
        if run is None or len(run) <= _LETTERS_ALONE:
            yield match[0]
            continue
        words = [word for word in WordBreaker(run, "en") if word[0].isalnum()]
        yield from words
        # A short run is one word in a question although the dictionary may know it as two.
        yield from (pair for pair in map("".join, pairwise(words)) if len(pair) <= _LETTERS_ALONE)


def hashed(words: Iterable[str]) -> NDArray[np.uint64]:
    """Hash M words, (M,); postings store hashes in place of words.

    Two of ten million words share a hash with a probability of three in a million.
    """
    digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words)
    return np.frombuffer(digests, dtype="<u8")
