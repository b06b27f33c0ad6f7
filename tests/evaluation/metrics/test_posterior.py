"""Probability on gold passages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics import gold_mass


@pytest.mark.parametrize(
    ("posteriors", "ids", "gold", "expected"),
    [
        ([0.5, 0.25, 0.25], "abc", "b", 0.25),
        ([0.5, 0.25, 0.25], "abc", "bc", 0.5),
        ([0.5, 0.25, 0.25], "aba", "a", 0.75),  # two passages of one page
        ([0.5, 0.25, 0.25], "abc", "xyz", 0.0),
        ([1.0, 0.0], "ab", "a", 1.0),
        ([0.501, 0.503], "ab", "a", 0.501 / 1.004),  # rounded as in bfloat16
    ],
)
def test_gold_mass(posteriors: list[float], ids: str, gold: str, expected: float) -> None:
    assert gold_mass(posteriors, list(ids), set(gold)) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.integers(0, 5)), min_size=1), st.randoms())
def test_mass_of_all_is_one(pairs: list[tuple[float, int]], random) -> None:
    total = sum(weight for weight, _ in pairs)
    pairs = [(weight / total, own) for weight, own in pairs]
    masses = [gold_mass(*zip(*pairs, strict=True), {i}) for i in range(6)]
    assert sum(masses) == pytest.approx(1)
    assert all(0 <= mass <= 1 for mass in masses)
    random.shuffle(pairs)
    assert [gold_mass(*zip(*pairs, strict=True), {i}) for i in range(6)] == pytest.approx(masses)


@pytest.mark.parametrize(
    "posteriors", [[71.2, 69.9], [1.5, -0.5], [float("nan"), 1.0], [0.2, 0.2], [float("inf"), 0.0]]
)
def test_scores_are_no_probabilities(posteriors: list[float]) -> None:
    with pytest.raises(ConfigurationError, match="probabilities that sum to 1"):
        gold_mass(posteriors, ["a", "b"], {"a"})


def test_bad_arguments() -> None:
    with pytest.raises(ConfigurationError, match="1 and 2 items"):
        gold_mass([1.0], ["a", "b"], {"a"})
    with pytest.raises(ConfigurationError, match="are empty"):
        gold_mass([], [], {"a"})
    with pytest.raises(ConfigurationError, match="gold is empty"):
        gold_mass([1.0], ["a"], set())
