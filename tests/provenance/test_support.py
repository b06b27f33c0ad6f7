"""Each word of an answer is traced to the longest run of the passage that contains it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragweave.provenance.posteriors import supporting_runs

TEXT = "Lima is the capital of Peru. The Andes run through Peru."


def found(answer: str, text: str) -> list[str | None]:
    """What supports each word of an answer."""
    runs = supporting_runs(answer, text)
    assert len(runs) == len(answer)
    return [
        None if (run := runs[word.start()]) is None else text[run.start : run.end]
        for word in re.finditer(r"\w+", answer)
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Lima", ["Lima"]),
        ("LIMA", ["Lima"]),
        ("the capital of Chile", ["the capital of"] * 3 + [None]),
        ("Peru: the Andes", ["Peru. The Andes"] * 3),
        ("Quito", [None]),
        ("run Peru", ["run", "Peru"]),
        ("", []),
    ],
)
def test_the_longest_run_around_each_word(answer: str, expected: list[str | None]):
    assert found(answer, TEXT) == expected


def test_the_first_of_equal_runs():
    run = supporting_runs("Peru", TEXT)[0]
    assert run is not None
    assert (run.words, run.start, run.end) == (1, TEXT.index("Peru"), TEXT.index("Peru") + 4)


def test_nothing_between_words():
    assert supporting_runs("of Peru", TEXT)[2] is None


def test_no_text():
    assert supporting_runs("Peru", "") == [None] * 4


words = st.lists(st.sampled_from("abc"), max_size=9)


@given(words, words)
def test_against_all_runs(answer: list[str], text: list[str]):
    joined = " ".join(text)
    for place, supported in enumerate(found(" ".join(answer), joined)):
        around = [
            answer[start:end]
            for start in range(place + 1)
            for end in range(place + 1, len(answer) + 1)
            if any(text[at : at + end - start] == answer[start:end] for at in range(len(text)))
        ]
        longest = max((len(run) for run in around), default=0)
        assert (0 if supported is None else len(supported.split())) == longest
        assert supported is None or supported.split() in around
