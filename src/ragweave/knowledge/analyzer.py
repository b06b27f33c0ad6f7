"""The words of a text, as BM25 compares them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

import numpy as np
import Stemmer
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError

NO_LANGUAGE = "none"
"""The language of words that are neither stemmed nor filtered."""

# Runs of letters and digits. In scripts without spaces between words, every character is a word.
_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")

_ENGLISH_STOP_WORDS = frozenset(
    _WORD.findall(
        "a an and are as at be but by did do does for from had has have he her his how i if in into is it its no not "
        "of on or our she so such that the their then there these they this to us was we were what when where which "
        "who whom whose why will with you your"
    )
)


class Analyzer:
    """Splits texts into words: lower case, stemmed, without stop words.

    Args:
        language: A language of the Snowball stemmers, such as ``"english"``, or ``"none"``.

    Raises:
        ConfigurationError: There is no stemmer for the language.
    """

    def __init__(self, language: str = "english") -> None:
        if language != NO_LANGUAGE and language not in Stemmer.algorithms():
            raise ConfigurationError(
                f"There is no stemmer for the language {language!r}. Choose {NO_LANGUAGE} or one of "
                f"{', '.join(sorted(Stemmer.algorithms()))}."
            )
        self.language = language
        self._stem = None if language == NO_LANGUAGE else Stemmer.Stemmer(language).stemWords
        self._stop_words = _ENGLISH_STOP_WORDS if language == "english" else frozenset()

    def words(self, text: str) -> list[str]:
        """The words of a text in their order."""
        words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
        if self._stop_words:
            words = [word for word in words if word not in self._stop_words]
        return words if self._stem is None else self._stem(words)


def hashed(words: Iterable[str]) -> NDArray[np.uint64]:
    """Hash M words, (M,); postings store hashes in place of words.

    Two of ten million words share a hash with a probability of three in a million.
    """
    digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words)
    return np.frombuffer(digests, dtype="<u8")
