"""Column maps: other names, nested ones, several together."""

from __future__ import annotations

import pytest

from ragweave.errors import DataError
from ragweave.evaluation.data import Columns, read_examples
from tests.support.questions import parts, written

LINE = {
    "qid": "x",
    "query": {"text": "Where?"},
    "gold": {"value": "Lima", "aliases": ["Peru", "Lima"], "none": None},
    "a.b": ["dotted"],
    "c+d": ["joined"],
    "evidence": "p",
    "passages": ["q"],
    "class": 3,
}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"answers": "gold.aliases"}, ("1", "Where?", ("Peru", "Lima"), ("q",))),
        ({"answers": "gold.value+gold.aliases"}, ("1", "Where?", ("Lima", "Peru"), ("q",))),
        ({"answers": "gold.none+gold.value"}, ("1", "Where?", ("Lima",), ("q",))),
        ({"answer": "gold.value", "id": "qid"}, ("x", "Where?", ("Lima",), ("q",))),
        ({"answers": "a.b"}, ("1", "Where?", ("dotted",), ("q",))),
        ({"answers": "c+d"}, ("1", "Where?", ("joined",), ("q",))),
        ({"answer": "gold.value", "passage": "evidence"}, ("1", "Where?", ("Lima",), ("p",))),
        ({"answer": "gold.value", "passages": "-"}, ("1", "Where?", ("Lima",), ())),
        ({"answer": "gold.value", "provenance": "evidence+passages"}, ("1", "Where?", ("Lima",), ("p", "q"))),
    ],
)
def test_names(tmp_path, columns, expected):
    path = written(tmp_path / "dev.jsonl", LINE)
    assert parts(read_examples(path, columns={"question": "query.text", **columns})) == [expected]


def test_a_label_that_is_named(tmp_path):
    path = written(tmp_path / "dev.jsonl", LINE)
    columns = {"question": "query.text", "answer": "gold.value", "label": "class"}
    assert read_examples(path, columns=columns)[0].label == "3"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"question": "q"}, "Line 1 of .* lacks 'q' .it has 'qid', 'query'"),
        ({"question": "query.words"}, "Line 1 of .* lacks 'query.words'"),
        ({"question": "qid.text"}, "Line 1 of .* lacks 'qid.text'"),
        ({"question": "query.text", "answers": "gold.value+gold.more"}, "Line 1 of .* lacks 'gold.more'"),
        ({"question": "query.text", "answers": "gold.value"}, "Line 1 of .* has answers that are not a list"),
        ({"question": "query.text", "answers": "gold.none", "passages": "-"}, "Line 1 of .* has no answers"),
        (
            {"question": "query.text", "answers": "gold.none.more", "passages": "-"},
            "Line 1 of .* has no answers",
        ),
        ({"question": "query"}, "Line 1 of .* has no question"),
        ({"question": "query.text", "answer": "gold.value", "passages": "class.x"}, "lacks 'class.x'"),
    ],
)
def test_names_that_are_not_there(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        read_examples(written(tmp_path / "dev.jsonl", LINE), columns=columns)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"qustion": "q"}, "has no field 'qustion': choose among id, question"),
        ({"answer": "a", "answers": "b"}, "name 'answers' twice"),
        ({"passage": "a", "provenance": "b"}, "name 'provenance' twice"),
    ],
)
def test_maps_that_cannot_be(columns, message):
    with pytest.raises(DataError, match=message):
        Columns(columns)
