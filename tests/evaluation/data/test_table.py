"""Tables of comma- or tab-separated values."""

from __future__ import annotations

import pytest

from ragweave.errors import DataError
from ragweave.evaluation.data import read_examples
from tests.support.questions import parts, written


def test_lists_are_spelled_out_in_fields(tmp_path):
    path = written(
        tmp_path / "dev.csv",
        "id,question, answers,passage",
        'x,"Where, now?","[""Lima"", ""Peru""]",p#0',
        "",
        ',Who?,[\'Ada\'],"[""q"", ""r""]"',
        "y,When?,\"('1', 2)\",",
    )
    found = read_examples(path)
    assert parts(found) == [
        ("x", "Where, now?", ("Lima", "Peru"), ("p#0",)),
        ("2", "Who?", ("Ada",), ("q", "r")),
        ("y", "When?", ("1", "2"), ()),
    ]
    assert [own.where for own in found] == [f"line {number} of {path}" for number in (2, 4, 5)]


def test_one_answer_is_taken_as_it_is(tmp_path):
    path = written(tmp_path / "dev.tsv", "question\tanswer", "Where?\t[Lima], Peru")
    assert parts(read_examples(path)) == [("1", "Where?", ("[Lima], Peru",), ())]


def test_columns_of_other_names(tmp_path):
    path = written(
        tmp_path / "dev.csv", "q,gold,more,doc", 'Where?,"[""Lima""]",Peru,"[""p""]"', "Who?,['Ada'],,"
    )
    columns = {"question": "q", "answers": "gold", "passages": "doc"}
    expected = [("1", "Where?", ("Lima",), ("p",)), ("2", "Who?", ("Ada",), ())]
    assert parts(read_examples(path, columns=columns)) == expected
    one = read_examples(path, columns={"question": "q", "answer": "more", "passage": "doc"}, limit=1)
    assert parts(one) == [("1", "Where?", ("Peru",), ("p",))]


def test_a_row_is_where_it_begins(tmp_path):
    path = written(tmp_path / "dev.csv", "question,answer", '"Where\nis it?",Lima', ",Ada")
    with pytest.raises(DataError, match=r"line 4 of .* has no question"):
        read_examples(path)


def test_a_field_above_pythons_limit(tmp_path):
    answer = "word " * 50_000
    path = written(tmp_path / "dev.csv", "question,answer", f"Where?,{answer}")
    assert read_examples(path)[0].answers == (answer.strip(),)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["question,answers", "a?,Lima"], "line 2 of .* has answers that are no list"),
        (["question,answers", "a?,"], "line 2 of .* has no answers"),
        (["question,answer", "a?,"], "line 2 of .* has no answers"),
        (["question,answer", " ,b"], "line 2 of .* has no question"),
        (["query,answer", "a?,b"], "line 2 of .* lacks 'question' .it has 'query', 'answer'."),
        (["question,gold", "a?,b"], "line 2 of .* lacks 'answers' .it has 'question', 'gold'."),
        (["question,answer,answer", "a?,b,c"], "has two columns 'answer': rename"),
        (["question,answer", "a?,b", "a?,b,c"], "row at line 3 of .* has 3 fields, the first line has 2"),
        (["question,answer", "a?,b", '"a"?,c'], "Line 3 of .* cannot be read as a table"),
        (["question,answers,passages", "a?,['b'],[p"], "line 2 of .* has passages that are no list"),
        (["question,answer"], "There are no questions in"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        read_examples(written(tmp_path / "dev.csv", *lines))
