"""Replace names by invented ones, consistently in all documents."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence

from experiments.hot_swap.corpus import Corpus, Document
from experiments.hot_swap.names import WORD, Name, fold, letters_of, words_of

_ONSETS: tuple[str, ...] = (*"bdfghjklmnprstvz" * 4, "br", "dr", "gl", "kr", "pl", "st", "tr")
_VOWELS = "aaeeioou"
_CODAS: tuple[str, ...] = (*"klmnnrrst", "nd", "rn", *[""] * 8)
_LONG_WORD = 6
_TRIES = 1000


class Exchange:
    """Exchanges every mention of some names, word by word.

    A word of a name is always exchanged for the same made-up word, in its own case, and a name keeps its shape:
    ``King CHARLES III`` becomes something like ``King VORDAL III``.

    Args:
        names: The names.
        made_up: A made-up word, in lower case, for each word of the names; see `invent_words`.
    """

    def __init__(self, names: Iterable[Name], made_up: dict[str, str]) -> None:
        # A longer name goes before one that it holds.
        self._names = sorted(names, key=lambda name: (-len(name.text), name.text))
        self._made_up = made_up

    def __call__(self, text: str) -> str:
        """Exchanges the names in a text.

        Args:
            text: The text.
        """
        parts, end = [], 0
        for match in self._mentions(text):
            parts += [text[end : match.start()], self._translated(text[match.start() : match.end()])]
            end = match.end()
        return "".join([*parts, text[end:]])

    def documents(self, documents: Iterable[Document]) -> list[Document]:
        """Exchanges the names in the titles and texts of documents; ids stay.

        Args:
            documents: Documents with ``id``, ``title`` and ``text``.
        """
        return [
            {"id": document["id"], "title": self(document["title"]), "text": self(document["text"])}
            for document in documents
        ]

    def _mentions(self, text: str) -> Iterable[re.Match[str]]:
        letters = set(letters_of(text))
        patterns = [name.pattern for name in self._names if name.key in letters]
        return re.finditer("|".join(patterns), fold(text)) if patterns else ()

    def _translated(self, mention: str) -> str:
        return WORD.sub(self._in_its_case, mention)

    def _in_its_case(self, match: re.Match[str]) -> str:
        word = match[0]
        made_up = self._made_up.get(key_of(word))
        if made_up is None or word.islower():
            return made_up or word
        return made_up.upper() if word.isupper() else made_up.capitalize()


def key_of(word: str) -> str:
    """Returns a word without accents and case, as `Exchange` looks it up."""
    return fold(word).lower()


def invent_words(names: Sequence[Name], corpus: Corpus, seed: int) -> dict[str, str]:
    """Invents a word for each word of some names.

    Args:
        names: The names.
        corpus: Documents that hold none of the made-up words, not even inside another word.
        seed: Other seeds make other words.

    Returns:
        Made-up words by the keys of those that they stand for, all different.

    Raises:
        ValueError: The corpus holds all that were tried.
    """
    rng = random.Random(seed)  # noqa: S311 - names, not secrets
    made_up: dict[str, str] = {}
    for key in sorted({key_of(word) for name in names for word in words_of(name.text)}):
        tries = (_invented(rng, syllables=3 if len(key) > _LONG_WORD else 2) for _ in range(_TRIES))
        taken = set(made_up.values())
        word = next((word for word in tries if word not in taken and word not in corpus), None)
        if word is None:
            raise ValueError(
                f"No word was found to stand for {key!r}: the documents hold all that were tried."
            )
        made_up[key] = word
    return made_up


def _invented(rng: random.Random, syllables: int) -> str:
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables)) + rng.choice(_CODAS)
