"""Whether the score of an answer tells how likely it is to be right.

Notation used for array shapes
    N answers.

Scores are probabilities: of an answer whose score is log p(y|x), take the exponential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics.checks import require_same_length, require_vector

Binning = Literal["width", "mass"]
# exp(log p) of an answer that is certain can be this much above one.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers of nearly one score: a point of a reliability diagram.

    Attributes:
        low: Lower edge of their scores, outside (but for the first bin).
        high: Upper edge, inside.
        confidence: Their mean score.
        accuracy: The share of them that is right.
        count: How many they are.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


def reliability_curve(
    scores: ArrayLike, correct: ArrayLike, *, bins: int = 15, binning: Binning = "width"
) -> list[ReliabilityBin]:
    """Sort answers into bins by score, and compare score and accuracy in each: what a reliability diagram draws.

    Args:
        scores: Probabilities, (N,).
        correct: Whether each answer is right, 0 or 1, (N,).
        bins: How many bins.
        binning: "width" for bins of equal width over [0, 1] (Guo et al. 2017), "mass" for bins that hold
            equally many answers, as far as equal scores, which stay together, allow (Nguyen and O'Connor 2015).

    Returns:
        The bins that hold an answer, by rising score.

    Raises:
        ConfigurationError: A score is no probability, ``correct`` is other than 0 and 1 or of another length, there
            is no answer or no bin, or the binning is unknown.

    Example:
        >>> for own in reliability_curve([0.1, 0.2, 0.9], [0, 1, 1], bins=2):
        ...     print(f"({own.low}, {own.high}] {own.confidence:.2f} {own.accuracy} {own.count}")
        (0.0, 0.5] 0.15 0.5 2
        (0.5, 1.0] 0.90 1.0 1
    """
    probabilities, right = _probabilities(scores, correct)
    if bins < 1:
        raise ConfigurationError(f"bins={bins}: give 1 or more.")
    if binning == "width":
        edges = np.linspace(0, 1, bins + 1)
    elif binning == "mass":
        n = len(probabilities)
        last = [-(-i * n // bins) - 1 for i in range(1, bins + 1)]  # the rank where each bin ends
        edges = np.sort(probabilities)[[0, *last]]
    else:
        raise ConfigurationError(f"binning={binning!r} is unknown: give 'width' or 'mass'.")
    number = np.searchsorted(edges[1:-1], probabilities, side="left")  # (N,)
    counts = np.bincount(number, minlength=bins)
    confidence = np.bincount(number, weights=probabilities, minlength=bins)
    hits = np.bincount(number, weights=right, minlength=bins)
    return [
        ReliabilityBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            confidence=float(confidence[i] / counts[i]),
            accuracy=float(hits[i] / counts[i]),
            count=int(counts[i]),
        )
        for i in np.flatnonzero(counts)
    ]


def expected_calibration_error(
    scores: ArrayLike, correct: ArrayLike, *, bins: int = 15, binning: Binning = "width"
) -> float:
    """Mean distance between score and accuracy over the bins of `reliability_curve`, weighted by answers, in [0, 1].

    Source: Naeini et al. 2015 and Guo et al. 2017.

    Args:
        scores: Probabilities, (N,).
        correct: Whether each answer is right, 0 or 1, (N,).
        bins: How many bins.
        binning: As in `reliability_curve`.

    Raises:
        ConfigurationError: As in `reliability_curve`.

    Example:
        >>> round(expected_calibration_error([0.1, 0.3, 0.9], [0, 1, 1], bins=2), 4)  # 2/3 · 0.3 + 1/3 · 0.1
        0.2333
    """
    curve = reliability_curve(scores, correct, bins=bins, binning=binning)
    distance = sum(own.count * abs(own.accuracy - own.confidence) for own in curve)
    return distance / sum(own.count for own in curve)


def brier_score(scores: ArrayLike, correct: ArrayLike) -> float:
    """Mean squared distance between score and outcome, in [0, 1]; lower is better. Source: Brier 1950.

    Args:
        scores: Probabilities, (N,).
        correct: Whether each answer is right, 0 or 1, (N,).

    Raises:
        ConfigurationError: A score is no probability, ``correct`` is other than 0 and 1 or of another length, or
            there is no answer.

    Example:
        >>> brier_score([0.5, 1.0], [0, 1])
        0.125
    """
    probabilities, right = _probabilities(scores, correct)
    return float(np.mean((probabilities - right) ** 2))


def auroc(scores: ArrayLike, correct: ArrayLike) -> float:
    """How likely a right answer has a higher score than a wrong one, in [0, 1]; a tie counts half.

    This is the area under the ROC curve of the score as a test for being right. Source: Hanley and McNeil 1982.

    Args:
        scores: Any numbers of which higher says surer, such as log p(y|x), (N,).
        correct: Whether each answer is right, 0 or 1, (N,).

    Raises:
        ConfigurationError: A score is NaN, ``correct`` is other than 0 and 1 or of another length, or all answers
            are right or all are wrong, for which there is no such thing.

    Example:
        >>> auroc([-3.0, -2.0, -1.0], [0, 1, 0])
        0.5
    """
    numbers, right = _checked(scores, correct)
    n_right = right.sum()
    n_wrong = len(right) - n_right
    if not n_right or not n_wrong:
        raise ConfigurationError(
            f"All answers are {'right' if n_right else 'wrong'}: AUROC compares right ones with wrong ones."
        )
    _, number, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[number]  # (N,), from 1; ties have their mean
    return float((ranks @ right - n_right * (n_right + 1) / 2) / (n_right * n_wrong))


def _probabilities(scores: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    numbers, right = _checked(scores, correct)
    if numbers.min() < 0 or numbers.max() > 1 + _TOLERANCE:
        raise ConfigurationError(
            f"scores range from {numbers.min():g} to {numbers.max():g}, and probabilities from 0 to 1: "
            "of log-probabilities, take the exponential."
        )
    return np.minimum(numbers, 1.0), right


def _checked(scores: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    numbers, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    require_vector(numbers, "scores", "answer")
    require_vector(right, "correct", "answer")
    require_same_length(numbers, right, "scores and correct")
    if np.isnan(numbers).any():
        raise ConfigurationError(
            f"{np.isnan(numbers).sum()} scores are NaN: leave those answers out, or mend them."
        )
    if not np.isin(right, (0, 1)).all():
        raise ConfigurationError(
            "correct has other values than 0 and 1: say of each answer whether it is right."
        )
    return numbers, right
