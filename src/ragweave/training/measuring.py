"""What is measured of a model in training: its answers, and what it retrieves."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from ragweave.matching import exact_match, f1
from ragweave.provenance.answers import Answer
from ragweave.types import Example

COLLAPSED_BELOW = 0.05
"""A retriever that gives fewer distinct passages than this share of what it could has collapsed."""

_HARDLY_MORE = 1.5
"""Up to so many times the passages of one question, all questions together get hardly more than that one."""

_ROOM = 4
"""So many times the passages of one question there must have been to get, for few of them to tell anything."""

_ENOUGH_QUESTIONS = 20
"""Fewer questions than these may well be about the same."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One question, answered.

    Attributes:
        exact_match: Whether the answer is right.
        f1: How far it is.
        recall: Whether a gold passage was retrieved; ``None`` where none is known.
        top_mass: The posterior's share on the best passage.
        passages: Ids of what was retrieved.
    """

    exact_match: float
    f1: float
    recall: float | None
    top_mass: float
    passages: tuple[str, ...]


def measured(example: Example, answer: Answer) -> Measured:
    """Compare an answer and its passages with what is right."""
    found = {passage.id for passage in answer.passages}
    gold = set(example.gold_passages)
    documents = {own.rpartition("#")[0] for own in found}
    return Measured(
        exact_match=exact_match(answer.answer, example.answers),
        f1=f1(answer.answer, example.answers),
        recall=float(bool(gold & (found | documents))) if gold else None,
        top_mass=max(own.posterior for own in answer.passages),
        passages=tuple(found),
    )


def figures_of(all_measured: Sequence[Measured], n_passages: int) -> dict[str, float]:
    """The means over questions, and how much of the knowledge base was retrieved.

    Args:
        all_measured: The questions, answered.
        n_passages: How many passages the knowledge base has.

    Returns:
        ``exact_match``, ``f1``, ``top_mass``; ``recall`` where gold passages are known; ``distinct``, how many
        different passages were retrieved, as a share of how many there could have been.

    Warns:
        UserWarning: The retriever has collapsed: nearly all questions get the same passages. That is so where 20
            questions or more together get at most 1.5 times as many different passages as one of them (K), though
            there were at least 4 times K to get; or where ``distinct`` is below 0.05.
    """
    retrieved = {name for own in all_measured for name in own.passages}
    possible = min(sum(len(own.passages) for own in all_measured), n_passages)
    distinct = len(retrieved) / max(possible, 1)
    if _has_collapsed(all_measured, len(retrieved), possible):
        warnings.warn(
            f"The retriever has collapsed: {len(all_measured)} questions got {len(retrieved)} different passages, "
            f"of {possible} that they could have got. Lower the learning rate, freeze the question encoder "
            "(freeze='question-encoder'), or begin with one that was trained for retrieval.",
            UserWarning,
            stacklevel=2,
        )
    recalls = [own.recall for own in all_measured if own.recall is not None]
    return {
        "exact_match": _mean([own.exact_match for own in all_measured]),
        "f1": _mean([own.f1 for own in all_measured]),
        **({"recall": _mean(recalls)} if recalls else {}),
        "top_mass": _mean([own.top_mass for own in all_measured]),
        "distinct": distinct,
    }


def _has_collapsed(all_measured: Sequence[Measured], different: int, possible: int) -> bool:
    """Whether nearly all questions got the same passages.

    The share alone does not tell: where all get the same K of N passages it is K / N, much in a small knowledge base.
    """
    if len(all_measured) < _ENOUGH_QUESTIONS or not different:
        return False
    of_one = max(len(own.passages) for own in all_measured)
    hardly_more = different <= _HARDLY_MORE * of_one and possible >= _ROOM * of_one
    return hardly_more or different < COLLAPSED_BELOW * possible


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
