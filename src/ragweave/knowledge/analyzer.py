"""The words of a text, as they are compared in search by words."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError

NO_LANGUAGE = "none"
"""Words as they are written, neither stemmed nor left out."""

# Runs of letters and digits; characters of scripts without spaces between words count one by one.
_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")

# Words that say nothing of what an English text is about.
_ENGLISH = frozenset(
    _WORD.findall(
        "a an and are as at be but by did do does for from had has have he her his how i if in into is it its no not "
        "of on or our she so such that the their then there these they this to us was we were what when where which "
        "who whom whose why will with you your"
    )
)


class Analyzer:
    """Takes texts apart into words: lower case, stemmed, without those that occur everywhere.

    Args:
        language: One that the Snowball stemmers know, such as ``"english"``, or ``"none"``.

    Raises:
        ConfigurationError: There is no stemmer of this name.
    """

    def __init__(self, language: str = "english") -> None:
        import Stemmer

        if language != NO_LANGUAGE and language not in Stemmer.algorithms():
            raise ConfigurationError(
                f"There is no stemmer for the language {language!r}; choose {NO_LANGUAGE} or one of "
                f"{', '.join(sorted(Stemmer.algorithms()))}."
            )
        self.language = language
        self._stem = None if language == NO_LANGUAGE else Stemmer.Stemmer(language).stemWords
        self._left_out = _ENGLISH if language == "english" else frozenset()

    def words(self, text: str) -> list[str]:
        """The words of a text in their order."""
        found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
        if self._left_out:
            found = [word for word in found if word not in self._left_out]
        return found if self._stem is None else self._stem(found)


def hashed(words: Iterable[str]) -> NDArray[np.uint64]:
    """Hash M words, (M,): postings know words by their hashes alone.

    Two of ten million words have one hash with a probability of three in a million.
    """
    digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words)
    return np.frombuffer(digests, dtype="<u8")
