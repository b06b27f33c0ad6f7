"""Metrics of an evaluation during training: answers, retrieved passages, and whether the retriever collapsed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from ragweave.matching import exact_match, f1
from ragweave.provenance.answers import Answer
from ragweave.types import Example

# When the retriever has collapsed; see `mean_metrics`. A few questions may have the same passages by chance.
_COLLAPSE_MIN_QUESTIONS = 20
_COLLAPSE_MAX_DISTINCT = 1.5  # times K
_COLLAPSE_MIN_POSSIBLE = 4  # times K
_COLLAPSE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class QuestionMetrics:
    """Metrics of one answered question."""

    exact_match: float | None  # of questions that have an answer
    f1: float | None
    recall: float | None  # whether a gold passage was retrieved, if one is known
    top_mass: float  # the posterior of the best passage
    passages: tuple[str, ...]  # ids of the retrieved passages


def question_metrics(example: Example, answer: Answer) -> QuestionMetrics:
    """Compare an answer and its passages with the gold ones."""
    passages = {passage.id for passage in answer.passages}
    documents = {name.rpartition("#")[0] for name in passages}
    gold = set(example.gold_passages)
    return QuestionMetrics(
        exact_match=exact_match(answer.answer, example.answers) if example.answers else None,
        f1=f1(answer.answer, example.answers) if example.answers else None,
        recall=float(bool(gold & (passages | documents))) if gold else None,
        top_mass=max(passage.posterior for passage in answer.passages),
        passages=tuple(passages),
    )


def mean_metrics(rows: Sequence[QuestionMetrics], n_passages: int) -> dict[str, float]:
    """Average over questions, and measure how much of a knowledge base of ``n_passages`` was retrieved.

    Returns:
        ``exact_match``, ``f1``, ``top_mass``; ``recall`` if gold passages are known; ``distinct``, the number of
        distinct retrieved passages divided by the possible number.

    Warns:
        UserWarning: The retriever has collapsed: nearly all questions get the same passages. At least 20 questions
            together have at most 1.5 K distinct passages out of at least 4 K possible ones, or ``distinct`` is below
            0.05.
    """
    distinct = len({name for row in rows for name in row.passages})
    possible = min(sum(len(row.passages) for row in rows), n_passages)
    if _has_collapsed(rows, distinct, possible):
        warnings.warn(
            f"The retriever has collapsed: {len(rows)} questions got {distinct} different passages, of {possible} "
            "possible ones. Lower the learning rate, freeze the question encoder (freeze='question-encoder'), or "
            "start from an encoder that was trained for retrieval.",
            UserWarning,
            stacklevel=2,
        )
    recalls = [row.recall for row in rows if row.recall is not None]
    return {
        "exact_match": _mean([row.exact_match for row in rows if row.exact_match is not None]),
        "f1": _mean([row.f1 for row in rows if row.f1 is not None]),
        **({"recall": _mean(recalls)} if recalls else {}),
        "top_mass": _mean([row.top_mass for row in rows]),
        "distinct": distinct / max(possible, 1),
    }


def _has_collapsed(rows: Sequence[QuestionMetrics], distinct: int, possible: int) -> bool:
    """Whether nearly all questions got the same passages."""
    if len(rows) < _COLLAPSE_MIN_QUESTIONS or not distinct:
        return False
    k = max(len(row.passages) for row in rows)
    # The share alone is not enough: if all get the same K of N passages, it is K / N, large for a small N.
    nearly_the_same = distinct <= _COLLAPSE_MAX_DISTINCT * k and possible >= _COLLAPSE_MIN_POSSIBLE * k
    return nearly_the_same or distinct < _COLLAPSE_SHARE * possible


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
