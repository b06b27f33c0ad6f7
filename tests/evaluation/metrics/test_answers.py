"""Exact match, F1 and match with a pattern; the values are worked by hand from SQuAD's and DrQA's definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics import exact_match, f1, normalize_answer, regex_match

NAMES = st.text("abc the,.é ", max_size=20)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Eiffel Tower.", "eiffel tower"),
        ("a  cat,  an apple", "cat apple"),
        ("AND theatre anthem", "and theatre anthem"),  # articles are whole words
        ("U.S.", "us"),
        ("$5.2 million", "52 million"),
        ("twenty-one", "twentyone"),
        ("don't", "dont"),
        ("A-team", "ateam"),  # punctuation goes before articles
        ("the", ""),
        ("", ""),
        ("\tone\n two ", "one two"),
        ("Zürich's ÉCOLE", "zürichs école"),
        ("“quoted” \u2013 5 €", "“quoted” \u2013 5 €"),  # only ASCII punctuation goes
        ("東京。", "東京。"),
        ("à la carte", "à la carte"),  # an accented letter is no article
        (
            "a\u0300 la carte",
            "\u0300 la carte",
        ),  # but a letter before a combining accent is: SQuAD's script does so
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("prediction", "golds", "expected"),
    [
        ("the Eiffel Tower!", ["Eiffel Tower"], 1.0),
        ("Eiffel", ["Eiffel Tower"], 0.0),
        ("Paris", ["London", "paris."], 1.0),
        ("", ["Paris"], 0.0),
        ("Paris", [""], 0.0),
        ("", ["the"], 1.0),  # both are empty in the normal form
        ("ÉCOLE", ["école"], 1.0),
        ("école", ["ecole"], 0.0),
    ],
)
def test_exact_match(prediction: str, golds: list[str], expected: float) -> None:
    assert exact_match(prediction, golds) == expected


@pytest.mark.parametrize(
    ("prediction", "golds", "expected"),
    [
        ("Eiffel Tower", ["the Eiffel Tower"], 1.0),
        ("Eiffel", ["Eiffel Tower"], 2 * 1 * 0.5 / 1.5),  # precision 1, recall 1/2
        ("big old Eiffel Tower", ["Eiffel Tower"], 2 * 0.5 * 1 / 1.5),  # precision 1/2, recall 1
        ("red green blue", ["green yellow"], 2 * (1 / 3) * 0.5 / (1 / 3 + 0.5)),  # 0.4
        ("tower tower", ["tower"], 2 * 0.5 * 1 / 1.5),  # a word counts as often as in both
        ("tower tower", ["tower tower hall"], 2 * 1 * (2 / 3) / (5 / 3)),
        ("Paris", ["London", "Paris France", "Paris"], 1.0),  # the best of the golds
        ("Paris", ["London"], 0.0),
        ("", ["Paris"], 0.0),
        ("Paris", [""], 0.0),
        # SQuAD 2 counts two empty answers as equal; SQuAD 1.1, where every question has an answer, does not.
        ("", [""], 0.0),
        ("the", ["a"], 0.0),
        ("Zürich, See", ["zürich see"], 1.0),
    ],
)
def test_f1(prediction: str, golds: list[str], expected: float) -> None:
    assert f1(prediction, golds) == pytest.approx(expected)


@given(NAMES, st.lists(NAMES, min_size=1, max_size=3))
def test_bounds(prediction: str, golds: list[str]) -> None:
    assert 0.0 <= f1(prediction, golds) <= 1.0
    if exact_match(prediction, golds) and normalize_answer(prediction):
        assert f1(prediction, golds) == 1.0


@given(NAMES)
def test_normal_form_of_a_normal_form(text: str) -> None:
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)


@given(NAMES, NAMES)
def test_f1_is_symmetric(one: str, other: str) -> None:
    assert f1(one, [other]) == pytest.approx(f1(other, [one]))


@pytest.mark.parametrize(
    ("prediction", "golds", "expected"),
    [
        ("July 20, 1969", [r"1969", r"July 20,? 1969"], 1.0),
        ("in July 1969", [r"July"], 0.0),  # from the beginning
        ("1969 or so", [r"19\d\d"], 1.0),  # but not to the end
        ("JULY", [r"july"], 1.0),
        ("one\nJuly", [r"^July"], 0.0),
        ("Émile", [r"ÉMILE"], 1.0),
        ("", [r"x?"], 1.0),
        ("", [r"x"], 0.0),
    ],
)
def test_regex_match(prediction: str, golds: list[str], expected: float) -> None:
    assert regex_match(prediction, golds) == expected


def test_a_pattern_that_is_none_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'\(1969' is no regular expression"):
        regex_match("1969", ["1969", "(1969"][::-1])


@pytest.mark.parametrize("metric", [exact_match, f1, regex_match])
def test_without_gold_there_is_no_score(metric) -> None:
    with pytest.raises(ConfigurationError, match="golds is empty"):
        metric("Paris", [])
    with pytest.raises(ConfigurationError, match=r"give a list, such as \['Paris'\]"):
        metric("Paris", "Paris")
