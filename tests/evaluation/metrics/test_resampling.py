"""Bootstrap intervals cover the true mean as often as they claim, and the paired test agrees with scipy's."""

from __future__ import annotations

import tracemalloc
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics import Interval, bootstrap_interval, paired_test

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@pytest.mark.parametrize("draw", ["binomial", "skewed"])
def test_intervals_hold_the_true_mean_as_often_as_they_say(draw: str) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        values = rng.random(200) < 0.3 if draw == "binomial" else rng.random(200) ** 2
        interval = bootstrap_interval(values, samples=400, seed=trial)
        covered += interval.low <= (0.3 if draw == "binomial" else 1 / 3) <= interval.high
    assert 0.92 <= covered / 400 <= 0.98


def test_interval_is_that_of_the_means_of_resamples() -> None:
    values = np.random.default_rng(1).random(300)
    draws = np.random.default_rng(3).integers(0, 300, (2_000, 300))
    interval = bootstrap_interval(values, samples=2_000, seed=3)
    assert (interval.low, interval.high) == pytest.approx(np.quantile(values[draws].mean(1), [0.025, 0.975]))
    narrow = bootstrap_interval(values, confidence=0.5, samples=2_000, seed=3)
    assert interval.low < narrow.low < values.mean() < narrow.high < interval.high


@given(VALUES, st.integers(0, 5))
def test_the_same_arguments_give_the_same_interval(values: list[float], seed: int) -> None:
    interval = bootstrap_interval(values, samples=50, seed=seed)
    assert interval == bootstrap_interval(values, samples=50, seed=seed)
    assert min(values) - 1e-12 <= interval.low <= interval.high <= max(values) + 1e-12


def test_equal_values_leave_no_doubt() -> None:
    assert bootstrap_interval([0.5] * 10) == Interval(0.5, 0.5)
    assert bootstrap_interval([1]) == Interval(1.0, 1.0)


def test_memory_does_not_grow_with_samples_times_values() -> None:
    values = np.random.default_rng(0).random(100_000)
    tracemalloc.start()
    interval = bootstrap_interval(values, samples=300)  # 30 million draws: 240 MB at once, and as much again
    paired_test(values, 1 - values, samples=300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 100_000**0.5, rel=0.2)


def exact_p(a: list[float], b: list[float]) -> float:
    """By all 2^N swaps."""
    differences = np.subtract(a, b)
    sums = np.array([np.dot(signs, differences) for signs in product((-1, 1), repeat=len(a))])
    return float((np.abs(sums) >= abs(differences.sum()) - 1e-9).mean())


@given(st.lists(st.tuples(*[st.integers(0, 4).map(lambda i: i / 4)] * 2), min_size=1, max_size=8))
def test_p_value_is_that_of_all_swaps(pairs: list[tuple[float, float]]) -> None:
    a, b = [one for one, _ in pairs], [other for _, other in pairs]
    result = paired_test(a, b, samples=2000)
    assert result.difference == pytest.approx(np.mean(a) - np.mean(b))
    assert result.p_value == pytest.approx(exact_p(a, b), abs=0.06)  # five standard deviations
    swapped = paired_test(b, a, samples=2000)
    assert swapped.difference == -result.difference
    assert swapped.p_value == result.p_value


def test_p_value_as_scipy() -> None:
    rng = np.random.default_rng(5)
    a = rng.random(60)
    b = a + rng.normal(0.03, 0.1, 60)
    reference = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=rng,
    )
    ours = paired_test(a, b, samples=20_000)
    assert 0.005 < ours.p_value < 0.5
    assert ours.p_value == pytest.approx(reference.pvalue, abs=0.015)
    assert ours.difference == pytest.approx(reference.statistic)


def test_equals_are_called_different_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(0)
    rejected = [
        paired_test(rng.random(100) < 0.4, rng.random(100) < 0.4, samples=300, seed=trial).p_value <= 0.05
        for trial in range(400)
    ]
    assert 0.02 <= np.mean(rejected) <= 0.08


def test_a_plain_difference_is_found() -> None:
    a, b = [1.0] * 60 + [0.0] * 40, [1.0] * 40 + [0.0] * 60
    result = paired_test(a, b)
    assert result.difference == pytest.approx(0.2)
    assert result.p_value == pytest.approx(1 / 10_001)  # never 0
    assert 0.1 < result.interval.low < 0.2 < result.interval.high < 0.3
    assert result.interval == bootstrap_interval(np.subtract(a, b))
    assert paired_test(a, a) == paired_test(b, b)
    assert paired_test(a, a).p_value == 1.0


def test_bad_arguments() -> None:
    with pytest.raises(ConfigurationError, match="values is empty"):
        bootstrap_interval([])
    with pytest.raises(ConfigurationError, match="1 values that are NaN or infinite"):
        bootstrap_interval([0.5, float("nan")])
    with pytest.raises(ConfigurationError, match="one number for each question"):
        bootstrap_interval([[0.5, 0.5]])
    for confidence in (0, 1, 95, float("nan")):
        with pytest.raises(ConfigurationError, match="confidence="):
            bootstrap_interval([0.5], confidence=confidence)
    with pytest.raises(ConfigurationError, match="samples=0"):
        bootstrap_interval([0.5], samples=0)
    with pytest.raises(ConfigurationError, match="2 and 1 items"):
        paired_test([1, 0], [1])
    with pytest.raises(ConfigurationError, match="b has 1 values"):
        paired_test([1, 0], [1, float("inf")])
