"""How well the score of an answer predicts whether it is correct, and the probability of the gold passages.

Notation used for array shapes: N answers.

``scores`` are probabilities, (N,): take the exponential of log p(y|x). ``correct`` is 0 or 1 for each answer, (N,).
Invalid numbers, mismatched shapes and empty lists raise a `ConfigurationError`.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from math import fsum, inf
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics.resampling import as_vector, require_same_length
from ragweave.matching import require_golds

Binning = Literal["width", "mass"]
# The exponential of the score of a certain answer can exceed 1 by this much.
_TOLERANCE = 1e-6
# The sum of posteriors in bfloat16 is this close to 1.
_MASS_TOLERANCE = 1e-2


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers with similar scores: a point of a reliability diagram."""

    low: float  # the lower edge of the scores, exclusive (inclusive for the first bin)
    high: float  # the upper edge, inclusive
    confidence: float  # the mean score of the answers
    accuracy: float  # the share of correct answers
    count: int


# Not scikit-learn's: calibration_curve does not count the answers of a bin and interpolates the edges of bins of
# equal mass, brier_score_loss refuses probabilities just above 1, and roc_auc_score refuses log 0.


def reliability_curve(
    scores: ArrayLike, correct: ArrayLike, *, bins: int = 15, binning: Binning = "width"
) -> list[ReliabilityBin]:
    """Group answers by score, and compare score and accuracy in each bin.

    Args:
        scores: Probabilities, (N,).
        correct: Whether each answer is correct, (N,).
        bins: The number of bins.
        binning: "width" for bins of equal width over [0, 1] (Guo et al. 2017), "mass" for bins with equally many
            answers, as far as ties allow: equal scores share a bin (Nguyen and O'Connor 2015).

    Returns:
        The bins that are not empty, by ascending score.

    Example:
        >>> for point in reliability_curve([0.1, 0.2, 0.9], [0, 1, 1], bins=2):
        ...     print(f"({point.low}, {point.high}] {point.confidence:.2f} {point.accuracy} {point.count}")
        (0.0, 0.5] 0.15 0.5 2
        (0.5, 1.0] 0.90 1.0 1
    """
    probabilities, outcomes = _probabilities(scores, correct)
    if bins < 1:
        raise ConfigurationError(f"bins={bins}: give 1 or more.")
    if binning == "width":
        edges = np.linspace(0, 1, bins + 1)
    elif binning == "mass":
        n = len(probabilities)
        last_ranks = [-(-i * n // bins) - 1 for i in range(1, bins + 1)]
        edges = np.sort(probabilities)[[0, *last_ranks]]
    else:
        raise ConfigurationError(f"binning={binning!r} is unknown: give 'width' or 'mass'.")
    indices = np.searchsorted(edges[1:-1], probabilities, side="left")  # (N,)
    counts = np.bincount(indices, minlength=bins)
    confidence = np.bincount(indices, weights=probabilities, minlength=bins)
    n_correct = np.bincount(indices, weights=outcomes, minlength=bins)
    return [
        ReliabilityBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            confidence=float(confidence[i] / counts[i]),
            accuracy=float(n_correct[i] / counts[i]),
            count=int(counts[i]),
        )
        for i in np.flatnonzero(counts)
    ]


def expected_calibration_error(
    scores: ArrayLike, correct: ArrayLike, *, bins: int = 15, binning: Binning = "width"
) -> float:
    """Return the mean distance between score and accuracy over the bins of `reliability_curve`, in [0, 1].

    The mean is weighted by the number of answers. Source: Naeini et al. 2015 and Guo et al. 2017.

    Example:
        >>> round(expected_calibration_error([0.1, 0.3, 0.9], [0, 1, 1], bins=2), 4)  # 2/3 · 0.3 + 1/3 · 0.1
        0.2333
    """
    curve = reliability_curve(scores, correct, bins=bins, binning=binning)
    distance = sum(point.count * abs(point.accuracy - point.confidence) for point in curve)
    return distance / sum(point.count for point in curve)


def brier_score(scores: ArrayLike, correct: ArrayLike) -> float:
    """Return the mean squared distance between score and outcome, in [0, 1]; lower is better. Source: Brier 1950.

    Example:
        >>> brier_score([0.5, 1.0], [0, 1])
        0.125
    """
    probabilities, outcomes = _probabilities(scores, correct)
    return float(np.mean((probabilities - outcomes) ** 2))


def auroc(scores: ArrayLike, correct: ArrayLike) -> float:
    """Return the probability that a correct answer scores higher than a wrong one, in [0, 1]; a tie counts half.

    This is the area under the ROC curve of the score as a classifier. Source: Hanley and McNeil 1982. The scores can
    be any numbers that rise with confidence, such as log p(y|x). There must be correct and wrong answers.

    Example:
        >>> auroc([-3.0, -2.0, -1.0], [0, 1, 0])
        0.5
    """
    numbers, outcomes = _checked(scores, correct)
    n_correct = outcomes.sum()
    n_wrong = len(outcomes) - n_correct
    if not n_correct or not n_wrong:
        raise ConfigurationError(
            f"All answers are {'right' if n_correct else 'wrong'}: AUROC compares right answers with wrong ones."
        )
    # The Mann-Whitney U statistic over the number of pairs.
    _, indices, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[indices]  # (N,), from 1; ties share their mean rank
    return float((ranks @ outcomes - n_correct * (n_correct + 1) / 2) / (n_correct * n_wrong))


def risk_coverage_curve(scores: ArrayLike, correct: ArrayLike) -> list[tuple[float, float]]:
    """Return the share of wrong answers among the most confident ones, for every share of answers given.

    Answers with equal scores are given together. Source: El-Yaniv and Wiener 2010.

    Returns:
        Pairs of coverage and risk by ascending coverage; the last has coverage 1.

    Example:
        >>> risk_coverage_curve([0.9, 0.8, 0.1, 0.1], [1, 0, 1, 1])
        [(0.25, 0.0), (0.5, 0.5), (1.0, 0.25)]
    """
    numbers, outcomes = _checked(scores, correct)
    order = np.argsort(-numbers, kind="stable")
    wrong = np.cumsum(1 - outcomes[order])
    lasts = np.flatnonzero(np.append(np.diff(numbers[order]) != 0, True))
    return [(float((i + 1) / len(order)), float(wrong[i] / (i + 1))) for i in lasts]


def area_under_risk_coverage(scores: ArrayLike, correct: ArrayLike) -> float:
    """Return the mean risk over all coverages, in [0, 1]; lower is better. Source: Geifman et al. 2019.

    Example:
        >>> area_under_risk_coverage([0.9, 0.8, 0.1, 0.1], [1, 0, 1, 1])
        0.25
    """
    before, area = 0.0, 0.0
    for coverage, risk in risk_coverage_curve(scores, correct):
        area += (coverage - before) * risk
        before = coverage
    return area


def best_threshold(scores: ArrayLike, given: ArrayLike, withheld: ArrayLike) -> tuple[float, float]:
    """Return the largest mean metric that a threshold on the scores reaches, and that threshold.

    This is how SQuAD 2.0 is scored (Rajpurkar et al. 2018): ``given`` is an answer's metric, ``withheld`` is 1 for
    questions that have no answer and 0 for others.

    Example:
        >>> best_threshold([0.9, 0.6, 0.3], [1, 0, 0], [0, 0, 1])
        (0.6666666666666666, 0.9)
    """
    numbers = as_vector(scores, "scores", "answer")
    gains = as_vector(given, "given", "answer") - as_vector(withheld, "withheld", "answer")
    require_same_length(numbers, gains, "scores and given")
    order = np.argsort(-numbers, kind="stable")
    totals = np.concatenate([[0.0], np.cumsum(gains[order])])
    lasts = np.append(np.diff(numbers[order]) != 0, True)  # equal scores are given or withheld together
    totals[1:][~lasts] = -np.inf
    best = int(totals.argmax())
    threshold = np.nextafter(numbers.max(), inf) if best == 0 else numbers[order[best - 1]]
    return float((totals[best] + np.sum(withheld)) / len(numbers)), float(threshold)


def gold_mass(posteriors: Sequence[float], ids: Sequence[Hashable], gold: Collection[Hashable]) -> float:
    """Return the total probability of the gold passages among K passages, in [0, 1].

    With p(z|x) it measures the retriever. With the posterior p(z | x, y) it measures which passages an answer came
    from. The probabilities, which sum to 1, of passages with the same id, such as those of one page, are added.

    Example:
        >>> gold_mass([0.5, 0.25, 0.25], ["a", "b", "a"], {"a"})
        0.75
    """
    require_same_length(posteriors, ids, "posteriors and ids")
    require_golds(gold, "gold")
    total = fsum(posteriors)
    # This form is false for NaN.
    if not (all(p >= 0 for p in posteriors) and abs(total - 1) <= _MASS_TOLERANCE):
        raise ConfigurationError(
            f"posteriors must be probabilities that sum to 1, and these sum to {total:g}: give "
            "the posteriors of an answer's passages, not their scores."
        )
    gold_ids = set(gold)
    return fsum(p for p, name in zip(posteriors, ids, strict=True) if name in gold_ids) / total


def _probabilities(scores: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    numbers, outcomes = _checked(scores, correct)
    if numbers.min() < 0 or numbers.max() > 1 + _TOLERANCE:
        raise ConfigurationError(
            f"scores range from {numbers.min():g} to {numbers.max():g}, and probabilities from 0 to 1: "
            "take the exponential of log-probabilities."
        )
    return np.minimum(numbers, 1.0), outcomes


def _checked(scores: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    numbers, outcomes = as_vector(scores, "scores", "answer"), as_vector(correct, "correct", "answer")
    require_same_length(numbers, outcomes, "scores and correct")
    if np.isnan(numbers).any():
        raise ConfigurationError(f"{np.isnan(numbers).sum()} scores are NaN: correct them or leave them out.")
    if not np.isin(outcomes, (0, 1)).all():
        raise ConfigurationError(
            "correct has other values than 0 and 1: give 1 for right and 0 for wrong answers."
        )
    return numbers, outcomes
