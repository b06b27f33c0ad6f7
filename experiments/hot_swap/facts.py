"""The capital and the chief of state of every country where both names are simple and unique."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from examples.world_factbook.documents import country_name
from experiments.embedded.factbook_questions import KINDS, LEFT_OUT, country_questions, text_at
from experiments.hot_swap.corpus import Corpus
from experiments.hot_swap.names import Name, fold, letters_of, person_name, place_name

CAPITAL, CHIEF = "capital", "chief-of-state"

_KINDS = {
    kind.name: kind._replace(wordings=kind.wordings.split("|")[0])
    for kind in KINDS
    if kind.name in (CAPITAL, CHIEF)
}
"""The two kinds, with their first wordings: "Who is the chief of state of X?", "What is the capital of X?"."""

_OFFICES = frozenset(
    {"affairs", "confederation", "co-prince", "king", "leader", "of", "presidency", "president", "sultan"}
)
"""Words that tell that a part of a title was read as part of a name."""

_MIN_SURNAME = 4
"""Shorter surnames are acronyms, or words of other languages, as well: ``MAN``, ``PAZ``."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A question about a country, and its answer.

    Attributes:
        id: Country and kind, such as ``france/capital``.
        kind: `CAPITAL` or `CHIEF`.
        question: The question.
        answers: The name, and the name with its bearer's title.
        name: The name.
    """

    id: str
    kind: str
    question: str
    answers: tuple[str, ...]
    name: Name

    @property
    def country(self) -> str:
        """The country, as it stands in the ids of its documents."""
        return self.id.partition("/")[0]


def choose_facts(countries: dict[str, dict[str, Any]], corpus: Corpus) -> list[Fact]:
    """Reads capital and chief of state of the countries where both names can be exchanged without a remainder.

    Left out are a capital that has several names or shares its role with another, that is part of a country's
    name, or an ordinary word; and a chief of state who is not one named person, or whose surname others bear.

    Args:
        countries: The Factbook's data by code.
        corpus: Its documents.

    Returns:
        Two facts for each such country, in the order of the countries.
    """
    facts: list[Fact] = []
    for code, country in countries.items():
        own = list(_read(code, country))
        if len(own) == len(_KINDS) and all(_is_exchangeable(fact, corpus) for fact in own):
            facts += own
    return facts


def _read(code: str, country: dict[str, Any]) -> Iterator[Fact]:
    if country_name(code, country) in LEFT_OUT:
        return
    capital = text_at(country, _KINDS[CAPITAL].path)
    for question in country_questions(code, country, _KINDS.values()):
        kind, answers = question["id"].partition("/")[2], tuple(question["answers"])
        if kind == CAPITAL:
            # "(on Efate)" is where it is; "(Ha Noi)" would be another name.
            clean = re.fullmatch(rf"{re.escape(answers[0])}(?: \([a-z][^()]*\))?", capital)
            name = place_name(answers[0]) if clean else None
        else:
            name = person_name(answers[0])
        if name is not None:
            yield Fact(question["id"], kind, question["question"], answers, name)


def _is_exchangeable(fact: Fact, corpus: Corpus) -> bool:
    name = fact.name
    if fact.kind == CAPITAL:
        return (
            re.fullmatch(r"[\w' -]+", name.text) is not None
            and not corpus.is_in_a_title(name)
            and not corpus.ordinary_words.issuperset(letters_of(name.text))
        )
    words = fold(name.text).lower().split()
    return (
        _OFFICES.isdisjoint(words)
        and not any(word.endswith(".") and len(word) > 2 for word in words)
        and len(name.surname) >= _MIN_SURNAME
        and not corpus.other_bearers(name)
    )
