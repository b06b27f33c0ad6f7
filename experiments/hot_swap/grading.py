"""Shares of right answers, by the version asked and by the version that the gold answers come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from experiments.hot_swap.answers import Asked, Version
from experiments.hot_swap.facts import CHIEF
from experiments.hot_swap.names import fold, person_name, place_name

from ragweave.matching import exact_match

RESAMPLES = 10_000
_CONFIDENCE = 95


@dataclass(frozen=True, slots=True)
class Share:
    """A share of questions, with its 95% bootstrap interval.

    Attributes:
        value: The share.
        low: The interval's lower end.
        high: Its upper end.
        questions: How many questions there were.
    """

    value: float
    low: float
    high: float
    questions: int


def share(asked: Iterable[Asked], is_so: Callable[[Asked], bool], *, seed: int = 0) -> Share | None:
    """Counts for which questions something holds.

    Countries, not questions, are drawn for the interval: the questions about one country are not independent.

    Args:
        asked: Questions and answers.
        is_so: What is counted.
        seed: Start of the random numbers.

    Returns:
        The share, or None if there are no questions.
    """
    by_country: dict[str, list[bool]] = {}
    for own in asked:
        by_country.setdefault(own.country, []).append(is_so(own))
    if not by_country:
        return None
    hits = np.array([sum(own) for own in by_country.values()])  # (C,), C countries
    counts = np.array([len(own) for own in by_country.values()])
    drawn = np.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
    shares = hits[drawn].sum(axis=1) / counts[drawn].sum(axis=1)  # (RESAMPLES,)
    tail = (100 - _CONFIDENCE) / 2
    low, high = np.percentile(shares, [tail, 100 - tail])
    return Share(float(hits.sum() / counts.sum()), float(low), float(high), int(counts.sum()))


def is_right_by(version: Version) -> Callable[[Asked], bool]:
    """Returns a test of whether an answer is what a version of the documents says, but for accents.

    The Factbook writes both ``Bogotá`` and ``Bogota``.

    Args:
        version: The version that the gold answers come from.
    """
    return lambda asked: exact_match(fold(asked.answer), [fold(gold) for gold in asked.gold[version]]) > 0


def leaks(asked: Asked) -> bool:
    """Tells whether an answer names the original capital or chief of state, in full or by the surname alone.

    Args:
        asked: A question and its answer.
    """
    original = asked.gold["original"][0]
    name = person_name(original) if asked.kind == CHIEF else place_name(original)
    return name is not None and re.search(name.pattern, fold(asked.answer), re.IGNORECASE) is not None


def select(asked: Sequence[Asked], *, version: Version, decoding: str, kinds: Iterable[str]) -> list[Asked]:
    """Returns the answers of one version and way of decoding to some kinds of questions."""
    kinds = set(kinds)
    return [own for own in asked if own.version == version and own.decoding == decoding and own.kind in kinds]
