"""Accuracy of labels, FEVER's among them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics import FEVER_2_WAY, FEVER_3_WAY, accuracy, label_match

PAIRS = st.lists(
    st.tuples(st.sampled_from(FEVER_3_WAY), st.sampled_from(FEVER_3_WAY)), min_size=1, max_size=20
)


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("SUPPORTS", "SUPPORTS", 1.0),
        (" supports\n", "SUPPORTS", 1.0),
        ("REFUTES", "SUPPORTS", 0.0),
        ("SUPPORTS it", "SUPPORTS", 0.0),
        ("", "SUPPORTS", 0.0),
        ("not enough info", "NOT ENOUGH INFO", 1.0),
    ],
)
def test_label_match(prediction: str, gold: str, expected: float) -> None:
    assert label_match(prediction, gold) == expected


def test_fever() -> None:
    golds = ["SUPPORTS", "REFUTES", "NOT ENOUGH INFO", "REFUTES"]
    predictions = ["supports", "SUPPORTS", "NOT ENOUGH INFO", "no idea"]
    assert accuracy(predictions, golds) == accuracy(predictions, golds, labels=FEVER_3_WAY) == 0.5
    assert accuracy(predictions[:2], golds[:2], labels=FEVER_2_WAY) == 0.5
    with pytest.raises(ConfigurationError, match="'NOT ENOUGH INFO' is none of SUPPORTS, REFUTES"):
        accuracy(predictions, golds, labels=FEVER_2_WAY)


@given(PAIRS)
def test_as_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    predictions, golds = [one for one, _ in pairs], [other for _, other in pairs]
    score = accuracy(predictions, golds)
    assert score == pytest.approx(accuracy_score(golds, predictions))
    assert accuracy(predictions[::-1], golds[::-1]) == score


def test_bad_arguments() -> None:
    with pytest.raises(ConfigurationError, match="1 and 2 items"):
        accuracy(["SUPPORTS"], ["SUPPORTS", "REFUTES"])
    with pytest.raises(ConfigurationError, match="are empty"):
        accuracy([], [])
    with pytest.raises(ConfigurationError, match="is none of"):
        accuracy(["SUPPORTS"], ["SUPPORTS"], labels=())
