"""The Factbook's documents, and the search for names that are not unique."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property

from experiments.hot_swap.names import PARTICLES, Name, fold, letters_of

Document = dict[str, str]


class Corpus:
    """Documents that know which of them hold a word.

    Args:
        documents: Documents with ``id``, ``title`` and ``text``.

    Attributes:
        documents: The same.
    """

    def __init__(self, documents: Iterable[Document]) -> None:
        self.documents = list(documents)
        self._folded = [
            f"{title}\n{text}"
            for title, text in ((fold(d["title"]), fold(d["text"])) for d in self.documents)
        ]
        self._holding: dict[str, list[int]] = defaultdict(list)
        for place, text in enumerate(self._folded):
            for letters in set(letters_of(text)):
                self._holding[letters].append(place)

    def __contains__(self, letters: str) -> bool:
        """Tells whether some letters stand anywhere, be it inside a word, in any case and with any accents."""
        return fold(letters).lower() in self._all_letters

    @cached_property
    def _all_letters(self) -> str:
        return "\n".join(self._holding)

    @cached_property
    def ordinary_words(self) -> set[str]:
        """The words that stand in lower case more than once, other than in addresses.

        Once is where the origin of a name is told: "nuuk is the Inuit word for cape".
        """
        words = re.compile(r"(?<![\w.@/'-])[a-z]+(?![\w@/'-]|\.\w)")
        counts = Counter(word for text in self._folded for word in words.findall(text))
        return {word for word, count in counts.items() if count > 1}

    def is_in_a_title(self, name: Name) -> bool:
        """Tells whether a title holds a name, whatever stands between its words: Saint-Pierre, Saint Pierre."""
        return f" {' '.join(letters_of(name.text))} " in self._titles

    @cached_property
    def _titles(self) -> str:
        return "\n".join(f" {' '.join(letters_of(document['title']))} " for document in self.documents)

    def mentions(self, name: Name) -> Iterator[tuple[str, re.Match[str]]]:
        """Finds a name.

        Args:
            name: The name.

        Yields:
            A document without accents, and the mention in it.
        """
        pattern = re.compile(name.pattern)
        for place in self._holding.get(name.key, ()):
            for match in pattern.finditer(self._folded[place]):
                yield self._folded[place], match

    def other_bearers(self, person: Name) -> list[str]:
        """Finds mentions of a surname that seem to be of another person, or of a thing.

        These are a part of another full name, as in ``Raul CASTRO`` when ``Xiomara CASTRO`` is meant, or of a
        double name.

        Args:
            person: A person's name.

        Returns:
            Such mentions, with the words before and after them.
        """
        found = []
        full = fold(person.text).lower()
        for text, match in self.mentions(person):
            before = re.search(r"(?:\w*-|[^\W\d_][\w'-]* |[A-Z]\. )?$", text[: match.start()][-40:])
            after = re.match(r"(?:-\w+| [^\W\d_][\w'-]*)?", text[match.end() :])
            around = before[0] if before else "", after[0] if after else ""
            if match[0].lower() != full and any(map(self._belongs_to_a_name, around)):
                found.append(match[0].join(around))
        return found

    def _belongs_to_a_name(self, neighbour: str) -> bool:
        word = neighbour.strip()
        if "-" in (word[:1], word[-1:]):
            return len(word) > 1
        if word in PARTICLES:
            return word not in ("an", "of", "the")
        return word[:1].isupper() and word.lower() not in self.ordinary_words
