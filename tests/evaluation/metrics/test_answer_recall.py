"""Whether passages hold an answer, against DPR's own way of looking: windows over lists of words."""

from __future__ import annotations

import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics import answer_recall_at_k, has_answer
from ragweave.evaluation.metrics.words import words

TEXTS = st.text("aAbé .,-\u0301\u2019\u00a0\n東1", max_size=12)


def tokens(text: str) -> list[str]:
    """The expression of DPR's SimpleTokenizer."""
    found = regex.finditer(
        r"([\p{L}\p{N}\p{M}]+)|([^\p{Z}\p{C}])",
        unicodedata.normalize("NFD", text),
        flags=regex.IGNORECASE | regex.UNICODE | regex.MULTILINE,
    )
    return [match[0].lower() for match in found]


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
    assert words(text) == tokens(text)
    assert has_answer(text, golds) == slow_has_answer(text, golds)


@given(TEXTS.filter(words), TEXTS, TEXTS)
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


def test_recall_grows_with_depth() -> None:
    passages = ["nothing", "Paris is here", "so is Lyon"]
    assert [answer_recall_at_k(passages, ["Lyon", "Paris"], k) for k in (1, 2, 3, 9)] == [0.0, 1.0, 1.0, 1.0]
    assert answer_recall_at_k(passages, ["Lyon"], 2) == 0.0
    assert answer_recall_at_k(passages, [r"ly\w+"], 3, patterns=True) == 1.0
    assert answer_recall_at_k([], ["Lyon"], 3) == 0.0


def test_bad_arguments() -> None:
    with pytest.raises(ConfigurationError, match="golds is empty"):
        has_answer("text", [])
    with pytest.raises(ConfigurationError, match="golds is empty"):
        answer_recall_at_k([], [], 1)
    with pytest.raises(ConfigurationError, match="golds is a string"):
        has_answer("text", "text")
    with pytest.raises(ConfigurationError, match="no regular expression"):
        has_answer("text", ["("], patterns=True)
    with pytest.raises(ConfigurationError, match="k=0"):
        answer_recall_at_k(["text"], ["text"], 0)
