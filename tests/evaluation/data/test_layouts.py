"""The fields of KILT and DPR become those of ragweave, and errors name the line."""

from __future__ import annotations

import json

import pytest

from ragweave.errors import DataError
from ragweave.evaluation.data import GivenPassage, read_examples
from tests.support.questions import parts, written

ENTRY = {"question": "Where?", "answers": ["Lima"]}
KILT = {
    "id": "k",
    "input": "Where?",
    "output": [
        {"answer": "Lima", "provenance": [{"wikipedia_id": "7", "title": "Peru"}, {"wikipedia_id": "7"}]},
        {"provenance": [{"wikipedia_id": 9}, {"title": "without an id"}]},
        {"answer": "Peru", "provenance": None},
        {"answer": ""},
    ],
}


def test_kilt(tmp_path):
    expected = [("k", "Where?", ("Lima", "Peru"), ("7", "9"))]
    assert parts(read_examples(written(tmp_path / "kilt.jsonl", KILT))) == expected


def test_squad(tmp_path):
    lima = [{"text": "Lima", "answer_start": 0}, {"text": "Lima", "answer_start": 9}]
    questions = [
        {"id": "a", "question": "Where?", "answers": lima, "is_impossible": False},
        {"id": "b", "question": "When?", "answers": [], "is_impossible": True, "plausible_answers": lima},
    ]
    paragraph = {"context": "Lima ... Lima", "qas": questions}
    path = written(tmp_path / "v2.json", {"version": "v2.0", "data": [{"paragraphs": [paragraph]}]})
    where, when = read_examples(path)
    assert (where.id, where.answers, where.unanswerable) == ("a", ("Lima",), False)
    assert (when.id, when.answers, when.unanswerable) == ("b", (), True)
    rows = [
        {"question": "Where?", "answers": {"text": ["Lima", "Lima"], "answer_start": [0, 9]}},
        {"question": "When?", "answers": {"text": [], "answer_start": []}},
    ]
    examples = read_examples(written(tmp_path / "rows.jsonl", *rows))
    assert [(item.answers, item.unanswerable) for item in examples] == [(("Lima",), False), ((), True)]
    with pytest.raises(DataError, match="does not have SQuAD's form"):
        read_examples(written(tmp_path / "bad.jsonl", {"data": [{"paragraphs": [{"qas": [{"id": "a"}]}]}]}))


@pytest.mark.parametrize(
    ("line", "unanswerable"),
    [
        ({"question": "a?", "answers": []}, True),
        ({"question": "a?", "unanswerable": True}, True),
        ({"question": "a?", "answers": ["b"], "is_impossible": True}, True),
        ({"question": "a?", "answers": ["b"], "unanswerable": False}, False),
        ({"question": "a?", "answers": [], "passages": ["c"]}, False),  # known passages, unknown answers
    ],
)
def test_questions_without_an_answer(tmp_path, line, unanswerable):
    (example,) = read_examples(written(tmp_path / "dev.jsonl", line))
    assert example.unanswerable == unanswerable
    assert bool(example.answers) == (line.get("answers") == ["b"] and not unanswerable)


def test_other_data_may_have_an_input_and_an_output_too(tmp_path):
    line = {"instruction": "Where?", "input": "", "output": "Lima"}
    columns = {"question": "instruction", "answer": "output"}
    examples = read_examples(written(tmp_path / "dev.jsonl", line), columns=columns)
    assert parts(examples) == [("1", "Where?", ("Lima",), ())]
    line = {"question": "Where?", "input": "", "output": "Lima", "answers": ["Lima"]}
    assert parts(read_examples(written(tmp_path / "dev.jsonl", line))) == parts(examples)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"input": "a?", "output": "x"}, "Line 1 of .* 'output' that is not a list of objects, as in KILT"),
        ({"input": "a?", "output": ["x"]}, "Line 1 of .* 'output' that is not a list"),
        ({"input": "a?", "output": [{"provenance": ["x"]}]}, "Line 1 of .* 'provenance' that is not a list"),
        ({"input": "", "output": [{"answer": "x"}]}, "Line 1 of .* has no question"),
        ({"input": "a?", "output": []}, "Line 1 of .* has no answers"),
    ],
)
def test_lines_of_kilt_that_cannot_be_read(tmp_path, line, message):
    with pytest.raises(DataError, match=message):
        read_examples(written(tmp_path / "kilt.jsonl", line))


def test_positive_passages_are_gold(tmp_path):
    first = {
        **ENTRY,
        "positive_ctxs": [{"passage_id": "5", "title": "Peru", "text": "Lima."}, {"psg_id": 6, "text": "L"}],
        "negative_ctxs": [{"passage_id": "7", "title": "", "text": "Ulm."}],
        "hard_negative_ctxs": [{"text": "Rome."}],
    }
    second = {"question": "Who?", "answers": ["Ada"], "positive_ctxs": [{"title": "Ada", "text": "no id"}]}
    path = tmp_path / "dev.json"
    path.write_text(json.dumps([first, second], indent=4))
    examples = read_examples(path, contexts=True)
    assert parts(examples) == [("1", "Where?", ("Lima",), ("5", "6")), ("2", "Who?", ("Ada",), ())]
    assert examples[0].contexts == (
        GivenPassage("Lima.", "Peru", "5", gold=True),
        GivenPassage("L", "", "6", gold=True),
        GivenPassage("Rome.", gold=False),
        GivenPassage("Ulm.", "", "7", gold=False),
    )
    line = path.read_text().split("\n").index('        "question": "Who?",')  # the brace is a line before
    assert examples[1].where == f"question 2, line {line} of {path}"
    assert all(example.contexts == () for example in read_examples(path))


def test_a_retrievers_output_in_lines(tmp_path):
    line = {
        "question": "Where?",
        "answers": ["Lima"],
        "ctxs": [{"id": "4", "title": "Peru", "text": "Lima."}],
    }
    (example,) = read_examples(written(tmp_path / "out.jsonl", line), contexts=True)
    assert example.gold_passages == ()
    assert example.contexts == (GivenPassage("Lima.", "Peru", "4"),)
