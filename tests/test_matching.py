"""Answers and passages against gold answers: SQuAD's, DrQA's and DPR's definitions, worked by hand."""

from __future__ import annotations

import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from ragweave.errors import ConfigurationError
from ragweave.matching import (
    dpr_tokenize,
    exact_match,
    f1,
    has_answer,
    normalize_answer,
    regex_match,
)

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
        ("à la carte", "à la carte"),  # an accented letter is not an article
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


def test_an_invalid_pattern_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'\(1969' is not a valid regular expression"):
        regex_match("1969", ["1969", "(1969"][::-1])


@pytest.mark.parametrize("metric", [exact_match, f1, regex_match])
def test_without_gold_there_is_no_score(metric) -> None:
    with pytest.raises(ConfigurationError, match="golds is empty"):
        metric("Paris", [])
    with pytest.raises(ConfigurationError, match=r"give a list, such as \['Paris'\]"):
        metric("Paris", "Paris")


TEXTS = st.text("aAbé .,-\u0301\u2019\u00a0\n東1", max_size=12)


def tokens(text: str) -> list[str]:
    """The expression of DPR's SimpleTokenizer."""
    matches = regex.finditer(
        r"([\p{L}\p{N}\p{M}]+)|([^\p{Z}\p{C}])",
        unicodedata.normalize("NFD", text),
        flags=regex.IGNORECASE | regex.UNICODE | regex.MULTILINE,
    )
    return [match[0].lower() for match in matches]


def slow_has_answer(text: str, golds: list[str]) -> bool:
    passage = tokens(text)
    answers = [tokens(gold) for gold in golds if tokens(gold)]
    return any(
        passage[i : i + len(answer)] == answer
        for answer in answers
        for i in range(len(passage) - len(answer) + 1)
    )


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        ("He was born in Ulm, Germany.", "ulm", True),
        ("He was born in Ulm, Germany.", "Ulm Germany", False),  # the comma is a word
        ("He was born in Ulm, Germany.", "Ulm ,  Germany", True),
        ("He was born in Ulmer Straße.", "Ulm", False),  # whole words
        ("the U.S. Senate", "U.S.", True),
        ("the US Senate", "U.S.", False),  # nothing is normalised away, unlike in exact match
        ("over 1,000 men", "1,000", True),
        ("over 11,000 men", "1,000", False),
        ("an apple", "the apple", False),
        ("Beyonc\u00e9 sang", "BEYONCE\u0301", True),  # composed or not
        ("Beyoncé sang", "Beyonce", False),
        ("", "x", False),
        ("x", "", False),  # no word is in no passage
        ("", "", False),
        ("日本の首都は東京", "東京", False),  # no spaces, one word: as in DPR
    ],
)
def test_has_answer(text: str, gold: str, expected: bool) -> None:
    assert has_answer(text, [gold]) is expected
    assert has_answer(text, ["not there", gold]) is expected


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_as_windows_of_words(text: str, golds: list[str]) -> None:
    assert dpr_tokenize(text) == tokens(text)
    assert has_answer(text, golds) == slow_has_answer(text, golds)


@given(TEXTS.filter(dpr_tokenize), TEXTS, TEXTS)
def test_what_stands_between_spaces_is_found(gold: str, before: str, after: str) -> None:
    assert has_answer(f"{before} {gold} {after}", [gold])


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("It was July 20 , 1969 .", r"july\s+20", True),  # anywhere, in any case
        ("It was June.", r"July|August", False),
        ("first\nsecond", r"^second$", True),  # lines
        ("Beyonc\u00e9", "e\u0301", True),  # both are written apart
    ],
)
def test_patterns(text: str, pattern: str, expected: bool) -> None:
    assert has_answer(text, [pattern], patterns=True) is expected


def test_has_answer_refuses_bad_arguments() -> None:
    with pytest.raises(ConfigurationError, match="golds is empty"):
        has_answer("text", [])
    with pytest.raises(ConfigurationError, match="golds is a string"):
        has_answer("text", "text")
    with pytest.raises(ConfigurationError, match="not a valid regular expression"):
        has_answer("text", ["("], patterns=True)
