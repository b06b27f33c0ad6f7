"""Pairs of files: ``.source`` and ``.target``, and the ``ans`` gold file."""

from __future__ import annotations

import pytest

from ragweave.errors import DataError
from ragweave.evaluation.data import read_examples
from tests.support.questions import parts, written


@pytest.fixture
def source(tmp_path):
    return written(tmp_path / "test.source", "Where?", "Who?")


def test_a_target_beside_its_source(source):
    written(source.with_suffix(".target"), " Lima ", "Ada")
    assert parts(read_examples(source)) == [("1", "Where?", ("Lima",), ()), ("2", "Who?", ("Ada",), ())]


def test_answers_in_a_file_of_any_name(tmp_path, source):
    gold = written(tmp_path / "gold.txt", "Peru", "Bea")
    for format_ in ("auto", "ans"):
        assert [own.answers for own in read_examples(source, format=format_, gold=gold)] == [
            ("Peru",),
            ("Bea",),
        ]
    questions = written(tmp_path / "questions.txt", "Why?", "When?")
    assert [own.question for own in read_examples(questions, gold=gold)] == ["Why?", "When?"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["Lima"], r"gold ends before line 2 of .*test.source: give one answer for each"),
        (["Lima", "Ada", "Bea", "Cy"], r"test.source ends before line 3 of .*gold"),
        (["Lima", ""], "line 2 of .*test.source has the answer ''"),
    ],
)
def test_files_that_do_not_fit(tmp_path, source, answers, message):
    gold = written(tmp_path / "gold", *answers)
    with pytest.raises(DataError, match=message):
        read_examples(source, gold=gold)


def test_blank_questions_count(tmp_path):
    questions, gold = written(tmp_path / "q.txt", "a?", "", "b?"), written(tmp_path / "g.txt", "1", "2", "3")
    with pytest.raises(DataError, match=r"line 2 of .*q.txt has no question"):
        read_examples(questions, gold=gold)


def test_files_that_are_missing(tmp_path, source):
    with pytest.raises(DataError, match=r"test.target cannot be read"):
        read_examples(source)
    questions = written(tmp_path / "q.txt", "a?")
    with pytest.raises(DataError, match="name the file of their answers with --gold-file"):
        read_examples(questions, format="ans")


def test_answers_to_a_file_that_holds_its_own_are_refused(tmp_path, source):
    path = written(tmp_path / "dev.jsonl", {"question": "a?", "answers": ["a"]})
    with pytest.raises(
        DataError, match="of the format jsonl, which holds its answers: leave --gold-file out"
    ):
        read_examples(path, gold=source)
