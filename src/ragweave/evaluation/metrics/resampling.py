"""How sure a mean over questions is, and whether one system is better than another.

Notation used for array shapes
    N questions, M resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics.checks import require_same_length, require_vector

# Random numbers that are drawn at once: 32 MB of them.
_DRAWS = 2**22


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: Its lower end.
        high: Its upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """How two systems differ on the same questions.

    Attributes:
        difference: Mean of the first less mean of the second.
        interval: Confidence interval of the difference.
        p_value: How likely a difference at least as large is, either way, if the systems were equals.
    """

    difference: float
    interval: Interval
    p_value: float


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, samples: int = 10_000, seed: int = 0
) -> Interval:
    """Confidence interval of a mean by the percentile bootstrap; the same arguments give the same interval.

    Source: Efron and Tibshirani 1993, chapter 13.

    Args:
        values: A metric of every question, (N,).
        confidence: How often such intervals hold the true mean.
        samples: How many resamples of N questions are drawn.
        seed: Seed of the draws.

    Raises:
        ConfigurationError: There is no value, one is not finite, or ``confidence`` or ``samples`` cannot be.

    Example:
        >>> bootstrap_interval([0.0, 1.0, 1.0, 1.0] * 25)
        Interval(low=0.66, high=0.83)
    """
    numbers = _values(values, "values")
    if not 0 < confidence < 1:
        raise ConfigurationError(f"confidence={confidence}: give a number between 0 and 1, such as 0.95.")
    _require_samples(samples)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            numbers[rng.integers(0, len(numbers), (rows, len(numbers)))].mean(axis=1)
            for rows in _chunks(samples, len(numbers))
        ]
    )  # (M,)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def paired_test(
    a: ArrayLike, b: ArrayLike, confidence: float = 0.95, samples: int = 10_000, seed: int = 0
) -> PairedTest:
    """Compare two systems by a metric of the same questions: the difference, its interval and its significance.

    The p-value is that of the two-sided permutation test, which swaps the systems' values at random question by
    question (Fisher 1935; Noreen 1989), counting the outcome itself as one of the permutations, so that it is never
    0; the interval is the percentile bootstrap of the differences. The same arguments give the same result.

    Args:
        a: The metric of every question under the first system, (N,).
        b: The same under the second, (N,), in the same order.
        confidence: How often such intervals hold the true difference.
        samples: How many permutations and resamples are drawn.
        seed: Seed of the draws.

    Raises:
        ConfigurationError: The values are of different number, there is none, one is not finite, or ``confidence``
            or ``samples`` cannot be.

    Example:
        >>> result = paired_test([1, 1, 1, 0] * 20, [1, 0, 1, 0] * 20)
        >>> result.difference, result.interval, result.p_value < 0.001
        (0.25, Interval(low=0.1625, high=0.35), True)
    """
    first, second = _values(a, "a"), _values(b, "b")
    require_same_length(first, second, "a and b")
    differences = first - second
    interval = bootstrap_interval(differences, confidence, samples, seed)
    return PairedTest(float(differences.mean()), interval, _p_value(differences, samples, seed))


def _p_value(differences: NDArray[np.float64], samples: int, seed: int) -> float:
    changed = differences[differences != 0]  # swapping equal values does nothing
    observed = abs(changed.sum())
    # Sums in another order differ by rounding; a permutation that ties with the outcome must count.
    reached = observed - 1e-9 * np.abs(changed).sum()
    rng = np.random.default_rng(seed)
    extreme = 0
    for rows in _chunks(samples, len(changed)):
        kept = rng.integers(0, 2, (rows, len(changed)), dtype=np.int8)
        sums = 2 * (kept @ changed) - changed.sum()  # (rows,)
        extreme += int((np.abs(sums) >= reached).sum())
    return (extreme + 1) / (samples + 1)


def _chunks(samples: int, width: int) -> Iterator[int]:
    """Split M resamples of some width into numbers of rows that memory holds."""
    most = max(1, _DRAWS // max(1, width))
    for start in range(0, samples, most):
        yield min(most, samples - start)


def _values(values: ArrayLike, name: str) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    require_vector(numbers, name, "question")
    if len(numbers) == 0:
        raise ConfigurationError(f"{name} is empty: there is nothing to resample.")
    if not np.isfinite(numbers).all():
        raise ConfigurationError(
            f"{name} has {(~np.isfinite(numbers)).sum()} values that are NaN or infinite: leave them out."
        )
    return numbers


def _require_samples(samples: int) -> None:
    if samples < 1:
        raise ConfigurationError(f"samples={samples}: give 1 or more; 10,000 are usual.")
