"""A JSON list, as DPR's files are: its fields, and reading it as a stream."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragweave.errors import DataError
from ragweave.evaluation.data import GivenPassage, read_examples
from tests.support.questions import parts, written

ENTRY = {"question": "Where?", "answers": ["Lima"]}


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
    found = read_examples(path, contexts=True)
    assert parts(found) == [("1", "Where?", ("Lima",), ("5", "6")), ("2", "Who?", ("Ada",), ())]
    assert found[0].contexts == (
        GivenPassage("Lima.", "Peru", "5", gold=True),
        GivenPassage("L", "", "6", gold=True),
        GivenPassage("Rome.", gold=False),
        GivenPassage("Ulm.", "", "7", gold=False),
    )
    line = path.read_text().split("\n").index('        "question": "Who?",')  # the brace is a line before
    assert found[1].where == f"question 2, line {line} of {path}"
    assert all(own.contexts == () for own in read_examples(path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.lists(
        st.fixed_dictionaries(
            {"question": st.text(min_size=1).map("q {}".format), "answers": st.just(["a"])}
        ),
        min_size=1,
    ),
    indent=st.sampled_from([None, 1, "\t"]),
    readable=st.booleans(),
    step=st.integers(1, 7),
)
def test_the_list_is_read_wherever_its_pieces_end(tmp_path, monkeypatch, content, indent, readable, step):
    text = json.dumps(content, indent=indent, ensure_ascii=not readable)
    path = tmp_path / "dev.json"
    path.write_text(text, "utf-8")
    monkeypatch.setattr("ragweave.knowledge.ingest.loaders.decoding.PIECE", step)
    found = read_examples(path, format="dpr")
    assert [own.question for own in found] == [own["question"].strip() for own in content]


def test_a_long_list_is_not_held_in_memory(tmp_path):
    passage = {"passage_id": "1", "title": "t", "text": "word " * 20_000}
    entry = json.dumps({**ENTRY, "positive_ctxs": [passage]})
    path = tmp_path / "train.json"
    path.write_text(f"[{', '.join([entry] * 300)}]")
    assert path.stat().st_size > 28 * 2**20
    tracemalloc.start()
    try:
        assert len(read_examples(path)) == 300
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_a_question_longer_than_a_piece(tmp_path):
    long = {**ENTRY, "positive_ctxs": [{"passage_id": str(n), "text": "word " * 100_000} for n in range(8)]}
    path = tmp_path / "dev.json"
    path.write_text(json.dumps([ENTRY, long, ENTRY]))
    assert [len(own.gold_passages) for own in read_examples(path)] == [0, 8, 0]


def test_a_question_longer_than_any(tmp_path, monkeypatch):
    monkeypatch.setattr("ragweave.evaluation.data.json_list.LONGEST", 2**20)
    path = written(tmp_path / "dev.json", [ENTRY, {**ENTRY, "more": "x" * 2**22}])
    with pytest.raises(DataError, match=r"question 2, line 1 of .* or longer than 1 MiB"):
        read_examples(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is not a JSON list of questions"),
        ("", "is not a JSON list of questions"),
        ("[]", "There are no questions in"),
        ("[", "question 1, line 1 of .* is not valid JSON"),
        ('[{"question": "a?",\n"answers": ["a"]},\n{"question": }]', r"question 2, line 3 of .* in line 3\)"),
        (
            '[{"question": "a?",\n"answers": ["a"]},\n\n{"question":\n "b',
            r"question 2, line 4 of .* in line 5\)",
        ),
        ('[{"question": "a?", "answers": ["a"]},]', "question 2, line 1 of .* is not valid JSON"),
        ('[{"question": "a?", "answers": ["a"]}', "Line 1 of .* neither a comma nor the end .* question 1"),
        ('[{"question": "a?", "answers": ["a"]}\n{}]', "Line 2 of .* neither a comma nor the end"),
        ('[{"question": "a?", "answers": ["a"]}]\n\n[]', "Line 3 of .* goes on after the end"),
        ("[3]", "question 1, line 1 of .* is not a JSON object"),
        ('[{"question": ' + "[" * 100_000, "question 1, line 1 of .* is not valid JSON"),
        ('[{"question": ' + "9" * 5000 + "}]", "question 1, line 1 of .* is not valid JSON"),
        ('[\n{"question": "", "answers": ["a"]}]', "question 1, line 2 of .* has no question"),
        ('[{"question": "a?", "answers": ["a"], "positive_ctxs": {}, "ctxs": [1]}]', "ctxs that are no list"),
    ],
)
def test_lists_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "dev.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_examples(path, format="dpr")


def test_bytes_that_are_no_text(tmp_path, monkeypatch):
    path = tmp_path / "dev.json"
    path.write_bytes(b'\xef\xbb\xbf[{"question": "\xc3\xa9\xe9", "answers": ["a"]}]')
    for step in (1, 2, 100):
        monkeypatch.setattr("ragweave.knowledge.ingest.loaders.decoding.PIECE", step)
        with pytest.raises(DataError, match="is not UTF-8 text: byte 0xe9 at offset 20"):
            read_examples(path, format="dpr")
    path.write_bytes(b'[{"question": "\xc3')
    with pytest.raises(DataError, match="is not UTF-8 text: byte 0xc3 at offset 15"):
        read_examples(path, format="dpr")


def test_a_byte_order_mark_before_the_list(tmp_path):
    path = tmp_path / "dev.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([ENTRY]).encode())
    assert parts(read_examples(path)) == [("1", "Where?", ("Lima",), ())]


def test_a_list_without_passages(tmp_path):
    path = written(tmp_path / "list.json", [{"id": "x", **ENTRY}, {**ENTRY, "passage": "p"}])
    assert parts(read_examples(path)) == [("x", "Where?", ("Lima",), ()), ("2", "Where?", ("Lima",), ("p",))]
