"""Questions that need two documents of the World Factbook: which of two countries has more of something.

A mixture over passages cannot join facts from two of them, since it reads each passage by itself; one prompt of all
passages can. The countries are those of the splits that the adapter was not trained on, no pair and fact is asked
about twice, and the larger value is at least a quarter larger.
"""

from __future__ import annotations

import random
import re
from itertools import combinations, zip_longest
from typing import Any, NamedTuple

from examples.world_factbook.documents import country_documents, country_name, slug, with_article
from experiments.embedded.factbook_questions import LEFT_OUT, Question, split_of, text_at


class Measure(NamedTuple):
    """What countries are compared by.

    Attributes:
        path: Where it stands in the Factbook; see `factbook_questions.Kind`.
        more: The question for the larger value.
        less: The question for the smaller one.
    """

    path: str
    more: str
    less: str


MEASURES = (
    Measure("People and Society>Population>total", "Which country has more inhabitants, {a} or {b}?",
            "Which country has fewer inhabitants, {a} or {b}?"),
    Measure("Geography>Area>total", "Which is larger by total area, {a} or {b}?",
            "Which is smaller by total area, {a} or {b}?"),
    Measure("Geography>Coastline", "Which country has the longer coastline, {a} or {b}?",
            "Which country has the shorter coastline, {a} or {b}?"),
    Measure("Geography>Elevation>mean elevation", "Which country has the higher mean elevation, {a} or {b}?",
            "Which country has the lower mean elevation, {a} or {b}?"),
    Measure("People and Society>Total fertility rate", "Where is the fertility rate higher, in {a} or in {b}?",
            "Where is the fertility rate lower, in {a} or in {b}?"),
    Measure("People and Society>Median age>total", "Where is the median age higher, in {a} or in {b}?",
            "Where is the median age lower, in {a} or in {b}?"),
    Measure("Transportation>Railways>total", "Which country has more kilometers of railways, {a} or {b}?",
            "Which country has fewer kilometers of railways, {a} or {b}?"),
)  # fmt: skip


def comparisons(countries: dict[str, dict[str, Any]], count: int = 200) -> list[Question]:
    """Questions with ``id``, ``question``, ``answers`` and ``passages`` (the ids of the two gold documents).

    Args:
        countries: The Factbook's data by code.
        count: How many, spread over the measures.
    """
    random_source = random.Random("comparisons")  # noqa: S311
    by_measure = [_of(measure, countries, random_source) for measure in MEASURES]
    questions = [one for each in zip_longest(*by_measure) for one in each if one is not None]
    return questions[:count]


def _of(
    measure: Measure, countries: dict[str, dict[str, Any]], random_source: random.Random
) -> list[Question]:
    values: dict[str, tuple[float, str]] = {}
    for code, country in countries.items():
        name = country_name(code, country)
        passage = f"{slug(name)}/{slug(measure.path.split('>')[0])}"
        ids = {document["id"] for document in country_documents(code, country)}
        if name in LEFT_OUT or split_of(name) == "train" or passage not in ids:
            continue
        text = text_at(country, measure.path)
        match = re.match(r"(\d[\d.,]*)( million)?", text)
        if match and float(value := match[1].rstrip(".,").replace(",", "")) > 0:
            values[name] = (float(value) * (1e6 if match[2] else 1), passage)
    pairs = [pair for pair in combinations(sorted(values), 2) if _differ(*(values[name][0] for name in pair))]
    random_source.shuffle(pairs)
    questions = []
    for pair in pairs:
        first, second = random_source.sample(pair, 2)
        wants_more = random_source.random() < 0.5
        pick = max if wants_more else min
        winner = pick(pair, key=lambda name: values[name][0])
        short = re.sub(r" \([^()]*\)$", "", winner)
        wording = measure.more if wants_more else measure.less
        questions.append(
            {
                "id": f"{slug(measure.path)}/{slug(first)}/{slug(second)}",
                "question": wording.format(a=with_article(first), b=with_article(second)),
                "answers": list(dict.fromkeys([with_article(short), short, winner])),
                "passages": [values[name][1] for name in (first, second)],
            }
        )
    return questions


def _differ(one: float, other: float) -> bool:
    return max(one, other) >= 1.25 * min(one, other)
