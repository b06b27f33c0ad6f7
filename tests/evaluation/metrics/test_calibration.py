"""Calibration by hand and against scikit-learn; the probability of gold passages."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics import (
    ReliabilityBin,
    auroc,
    brier_score,
    expected_calibration_error,
    gold_mass,
    reliability_curve,
)

SCORES = st.one_of(st.floats(0, 1), st.integers(0, 4).map(lambda i: i / 4))  # with ties, and on edges of bins
ANSWERS = st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=40)
NAN = float("nan")


def split(answers: list[tuple[float, bool]]) -> tuple[list[float], list[bool]]:
    return [score for score, _ in answers], [right for _, right in answers]


def test_bins_of_equal_width() -> None:
    curve = reliability_curve([0.0, 0.25, 0.5, 0.9, 1.0], [1, 0, 0, 1, 1], bins=4)
    assert curve == [
        ReliabilityBin(0.0, 0.25, 0.125, 0.5, 2),  # 0 is in the first bin, an edge in the lower one
        ReliabilityBin(0.25, 0.5, 0.5, 0.0, 1),
        ReliabilityBin(0.75, 1.0, 0.95, 1.0, 2),  # and an empty bin is left out
    ]


def test_bins_of_equal_mass() -> None:
    curve = reliability_curve([0.1, 0.2, 0.3, 0.9], [0, 0, 1, 1], bins=2, binning="mass")
    assert [(point.count, point.accuracy) for point in curve] == [(2, 0.0), (2, 1.0)]
    assert [point.confidence for point in curve] == pytest.approx([0.15, 0.6])
    tied = reliability_curve([0.5] * 9 + [0.7], [1] * 10, bins=5, binning="mass")
    assert [point.count for point in tied] == [9, 1]  # equal scores stay together


@pytest.mark.parametrize(
    ("scores", "correct", "bins", "expected"),
    [
        ([1.0, 1.0, 0.0], [1, 1, 0], 10, 0.0),
        ([1.0, 1.0], [0, 0], 10, 1.0),
        ([0.75] * 4, [1, 1, 1, 0], 10, 0.0),
        ([0.9, 0.9, 0.4, 0.4], [1, 0, 1, 0], 10, (0.4 + 0.1) / 2),
        ([0.9, 0.9, 0.4, 0.4], [1, 0, 1, 0], 1, 0.15),
        ([0.2, 0.2, 0.2, 0.8], [0, 0, 1, 1], 2, 3 / 4 * (1 / 3 - 0.2) + 1 / 4 * 0.2),
    ],
)
def test_expected_calibration_error(
    scores: list[float], correct: list[int], bins: int, expected: float
) -> None:
    assert expected_calibration_error(scores, correct, bins=bins) == pytest.approx(expected)


@given(ANSWERS, st.integers(1, 12))
def test_curve_as_scikit_learn(answers: list[tuple[float, bool]], bins: int) -> None:
    scores, correct = split(answers)
    curve = reliability_curve(scores, correct, bins=bins)
    accuracy, confidence = calibration_curve(correct, scores, n_bins=bins, pos_label=True)
    assert [point.accuracy for point in curve] == pytest.approx(accuracy)
    assert [point.confidence for point in curve] == pytest.approx(confidence)


@given(ANSWERS, st.integers(1, 12), st.sampled_from(["width", "mass"]))
def test_every_answer_is_in_its_bin(answers: list[tuple[float, bool]], bins: int, binning: str) -> None:
    scores, correct = split(answers)
    curve = reliability_curve(scores, correct, bins=bins, binning=binning)
    assert sum(point.count for point in curve) == len(answers)
    assert sum(point.count * point.accuracy for point in curve) == pytest.approx(sum(correct))
    for i, point in enumerate(curve):
        inside = [
            score for score in scores if point.low < score <= point.high or (i == 0 and score == point.low)
        ]
        assert point.count == len(inside)
        assert point.confidence == pytest.approx(sum(inside) / len(inside))


@given(st.sets(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 12))
def test_bins_of_equal_mass_are_equal_without_ties(scores: set[float], bins: int) -> None:
    curve = reliability_curve(list(scores), [1] * len(scores), bins=bins, binning="mass")
    counts = [point.count for point in curve]
    assert len(curve) == min(bins, len(scores))
    assert max(counts) - min(counts) <= 1


@given(ANSWERS)
def test_brier_as_scikit_learn(answers: list[tuple[float, bool]]) -> None:
    scores, correct = split(answers)
    assert brier_score(scores, correct) == pytest.approx(brier_score_loss(correct, scores, pos_label=True))


@given(ANSWERS.filter(lambda answers: 0 < sum(right for _, right in answers) < len(answers)))
def test_auroc_as_scikit_learn(answers: list[tuple[float, bool]]) -> None:
    scores, correct = split(answers)
    area = auroc(scores, correct)
    assert area == pytest.approx(roc_auc_score(correct, scores))
    assert auroc([-score for score in scores], correct) == pytest.approx(1 - area)
    pairs = [
        (right > wrong) + (right == wrong) / 2
        for right, is_right in answers
        for wrong, other in answers
        if is_right and not other
    ]
    assert area == pytest.approx(sum(pairs) / len(pairs))


@given(ANSWERS, st.randoms(), st.integers(1, 12), st.sampled_from(["width", "mass"]))
def test_order_does_not_count(answers: list[tuple[float, bool]], random, bins: int, binning: str) -> None:
    before = expected_calibration_error(*split(answers), bins=bins, binning=binning)
    brier = brier_score(*split(answers))
    random.shuffle(answers)
    assert expected_calibration_error(*split(answers), bins=bins, binning=binning) == pytest.approx(before)
    assert brier_score(*split(answers)) == pytest.approx(brier)
    assert 0 <= before <= 1
    assert 0 <= brier <= 1


def test_scores_that_tell_the_truth_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(20_000)
    correct = rng.random(20_000) < scores
    for binning in ("width", "mass"):
        assert expected_calibration_error(scores, correct, binning=binning) < 0.02
        assert expected_calibration_error(scores**3, correct, binning=binning) > 0.2
    assert auroc(scores**3, correct) == auroc(scores, correct)  # the order is all that counts


def test_log_probabilities() -> None:
    assert auroc([-5.0, -float("inf"), -0.1], [1, 0, 1]) == 1.0
    assert brier_score([exp(1e-7)], [1]) == 0.0  # an answer that is certain, rounded
    for metric in (brier_score, expected_calibration_error):
        with pytest.raises(ConfigurationError, match="take the exponential"):
            metric([-0.5, -0.1], [1, 0])


@pytest.mark.parametrize("metric", [brier_score, expected_calibration_error, reliability_curve, auroc])
def test_calibration_refuses_bad_arguments(metric) -> None:
    with pytest.raises(ConfigurationError, match="1 scores are NaN"):
        metric([0.5, NAN], [0, 1])
    with pytest.raises(ConfigurationError, match="other values than 0 and 1"):
        metric([0.5, 0.4], [0.5, 1])
    with pytest.raises(ConfigurationError, match="other values than 0 and 1"):
        metric([0.5, 0.4], [NAN, 1])
    with pytest.raises(ConfigurationError, match="2 and 1 items"):
        metric([0.5, 0.4], [1])
    with pytest.raises(ConfigurationError, match="are empty"):
        metric([], [])
    with pytest.raises(ConfigurationError, match="one number for each answer"):
        metric([[0.5, 0.4]], [[0, 1]])


def test_bad_bins_and_classes() -> None:
    with pytest.raises(ConfigurationError, match="bins=0"):
        reliability_curve([0.5], [1], bins=0)
    with pytest.raises(ConfigurationError, match="binning='height'"):
        reliability_curve([0.5], [1], binning="height")
    with pytest.raises(ConfigurationError, match="All answers are right"):
        auroc([0.5, 0.6], [1, 1])
    with pytest.raises(ConfigurationError, match="All answers are wrong"):
        auroc([0.5, 0.6], [0, 0])


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
    pairs = [(weight / total, name) for weight, name in pairs]
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


def test_gold_mass_refuses_bad_arguments() -> None:
    with pytest.raises(ConfigurationError, match="1 and 2 items"):
        gold_mass([1.0], ["a", "b"], {"a"})
    with pytest.raises(ConfigurationError, match="are empty"):
        gold_mass([], [], {"a"})
    with pytest.raises(ConfigurationError, match="gold is empty"):
        gold_mass([1.0], ["a"], set())
