"""JSON lines and streamed JSON lists are read, and errors name the line."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragweave.errors import DataError
from ragweave.evaluation.data import GivenPassage, read_examples
from tests.support.questions import parts, written


def test_every_key_of_ours(tmp_path):
    path = written(
        tmp_path / "dev.jsonl",
        {"id": "q1", "question": "Where?", "answers": ["Lima", "Lima, Peru", "Lima"], "passage": "peru#0"},
        "",
        {"question": " Who? ", "answer": "Ada", "provenance": [{"id": "ada"}, "lovelace"]},
        {"id": 7, "question": "When?", "answers": ["1", 2], "passages": None},
        {"question": "Why?", "answer": ["so", "thus"], "passage": {"title": "Reasons"}, "label": "odd"},
        {"question": "Which?", "passages": ["only", "these", "only"]},
    )
    examples = read_examples(path)
    assert parts(examples) == [
        ("q1", "Where?", ("Lima", "Lima, Peru"), ("peru#0",)),
        ("2", "Who?", ("Ada",), ("ada", "lovelace")),
        ("7", "When?", ("1", "2"), ()),
        ("4", "Why?", ("so", "thus"), ("Reasons",)),
        ("5", "Which?", (), ("only", "these")),
    ]
    assert [example.where for example in examples[:2]] == [f"line 1 of {path}", f"line 3 of {path}"]
    assert [example.label for example in examples[2:4]] == [None, "odd"]


def test_only_as_many_as_are_asked_for_are_read(tmp_path):
    path = written(tmp_path / "dev.jsonl", *[{"question": f"{n}?", "answers": ["a"]} for n in range(3)], "{")
    assert [example.question for example in read_examples(path, limit=2)] == ["0?", "1?"]
    with pytest.raises(DataError, match="Line 4 of"):
        read_examples(path)


def test_a_byte_order_mark_and_the_line_ends_of_windows(tmp_path):
    path = tmp_path / "dev.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"question": "Wo?", "answers": ["\xc3\x9clm"]}\r\n\r\n')
    assert parts(read_examples(path)) == [("1", "Wo?", ("Ülm",), ())]


def test_contexts_are_kept_where_they_are_asked_for(tmp_path):
    contexts = [
        {"text": "Lima.", "title": "Peru", "id": 3, "gold": True},
        {"text": "Ulm.", "gold": None},
        "Rome.",
    ]
    path = written(tmp_path / "dev.jsonl", {"question": "Where?", "answers": ["Lima"], "contexts": contexts})
    assert read_examples(path)[0].contexts == ()
    assert read_examples(path, contexts=True)[0].contexts == (
        GivenPassage("Lima.", "Peru", "3", gold=True),
        GivenPassage("Ulm."),
        GivenPassage("Rome."),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Line 2 of .* is not valid JSON"),
        ("[" * 100_000, "Line 2 of .* is not valid JSON"),
        ("9" * 5000, "Line 2 of .* is not valid JSON"),
        ("[1]", "Line 2 of .* is not a JSON object"),
        ({"answers": ["a"]}, "Line 2 of .* lacks 'question' .it has 'answers'.: name the column"),
        ({"question": "", "answers": ["a"]}, "Line 2 of .* has no question"),
        ({"question": " \t", "answers": ["a"]}, "Line 2 of .* has no question"),
        ({"question": None, "answers": ["a"]}, "Line 2 of .* has no question"),
        ({"question": 3, "answers": ["a"]}, "Line 2 of .* has no question"),
        ({"question": "a?"}, "Line 2 of .* lacks 'answers'"),
        ({"question": "a?", "answers": "Lima"}, "Line 2 of .* has answers that are not a list"),
        ({"question": "a?", "answers": {"a": 1}}, "Line 2 of .* has answers that are not a list"),
        ({"question": "a?", "unanswerable": "no"}, "Line 2 of .* has 'no' .* write true or false"),
        ({"question": "a?", "answers": None}, "Line 2 of .* has no answers"),
        ({"question": "a?", "answers": [""]}, "Line 2 of .* has the answer '', which is empty or not text"),
        ({"question": "a?", "answer": " "}, "Line 2 of .* has the answer ' ', which is empty or not text"),
        ({"question": "a?", "answers": [None]}, "Line 2 of .* has the answer 'None'"),
        ({"question": "a?", "answers": [True]}, "Line 2 of .* has the answer 'True'"),
        ({"question": "a?", "answers": [["a"]]}, "Line 2 of .* has the answer \"\\['a'\\]\""),
        ({"question": "a?", "answer": {"value": "a"}}, "Line 2 of .* has answers that are not a list"),
        ({"question": "a?", "answers": ["a"], "passages": 1.5}, "Line 2 of .* passages that are not a list"),
        ({"question": "a?", "answers": ["a"], "passages": [{}]}, "Line 2 of .* has the passage '{}'"),
        ({"question": "a?", "answers": ["a"], "id": 1.5}, "Line 2 of .* has the id '1.5'"),
        ({"question": "a?", "answers": ["a"], "contexts": "b"}, "Line 2 of .* contexts that are not a list"),
        ({"question": "a?", "answers": ["a"], "contexts": [3]}, "Line 2 of .* has the context '3'"),
        ({"question": "a?", "answers": ["a"], "contexts": [{"id": "b"}]}, "Line 2 of .* has the text 'None'"),
        (
            {"question": "a?", "answers": ["a"], "contexts": [{"text": "b", "gold": "yes"}]},
            "Line 2 of .* has the context .* gold .true or false",
        ),
        ({"id": "1", "question": "a?", "answers": ["a"]}, "Line 2 of .* has the id '1' of line 1"),
        ({"id": "1", "question": "ok?", "answers": ["a"]}, "Line 2 of .* has the id '1' of line 1"),
        ('{"question": "\\ud83d?", "answers": ["a"]}', "Line 2 of .* half of a surrogate pair"),
        (
            '{"question": "a?", "answers": ["b\\ude00"]}',
            "Line 2 of .* half of a surrogate pair at character 1",
        ),
    ],
)
def test_lines_that_cannot_be_read(tmp_path, line, message):
    path = written(tmp_path / "dev.jsonl", {"question": "ok?", "answers": ["a"]}, line)
    with pytest.raises(DataError, match=message):
        read_examples(path, contexts=True)


def test_text_that_is_none(tmp_path, monkeypatch):
    path = tmp_path / "dev.jsonl"
    path.write_bytes(b'{"question": "\xe9", "answers": ["a"]}\n')
    with pytest.raises(DataError, match=r"is not UTF-8 text: byte 0xe9 at offset 14"):
        read_examples(path)
    path.write_bytes(b'{"question": "a?", "answers": ["a"]}\n\0\n')
    with pytest.raises(DataError, match="zero byte at offset 37"):
        read_examples(path)
    monkeypatch.setattr("ragweave.knowledge.ingest.loaders.text._LINE_AT_MOST", 2**20)
    path.write_bytes(b'{"question": "a?", "answers": ["a"]}\n' + b" " * (2**20 + 1))
    with pytest.raises(DataError, match=r"Line 2 of .* has more than 1 MiB"):
        read_examples(path)


ENTRY = {"question": "Where?", "answers": ["Lima"]}


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
    monkeypatch.setattr("ragweave.knowledge.ingest.loaders.text.PIECE", step)
    examples = read_examples(path, format="dpr")
    assert [example.question for example in examples] == [entry["question"].strip() for entry in content]


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
    assert [len(example.gold_passages) for example in read_examples(path)] == [0, 8, 0]


def test_a_question_longer_than_any(tmp_path, monkeypatch):
    monkeypatch.setattr("ragweave.evaluation.data.formats.MAX_OBJECT_LENGTH", 2**20)
    path = written(tmp_path / "dev.json", [ENTRY, {**ENTRY, "more": "x" * 2**22}])
    with pytest.raises(DataError, match=r"Question 2, line 1 of .* or longer than 1 MiB"):
        read_examples(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is not a JSON list of questions"),
        ("", "is not a JSON list of questions"),
        ("[]", "There are no questions in"),
        ("[", "Question 1, line 1 of .* is not valid JSON"),
        ('[{"question": "a?",\n"answers": ["a"]},\n{"question": }]', r"Question 2, line 3 of .* in line 3\)"),
        (
            '[{"question": "a?",\n"answers": ["a"]},\n\n{"question":\n "b',
            r"Question 2, line 4 of .* in line 5\)",
        ),
        ('[{"question": "a?", "answers": ["a"]},]', "Question 2, line 1 of .* is not valid JSON"),
        ('[{"question": "a?", "answers": ["a"]}', "Line 1 of .* neither a comma nor the end .* question 1"),
        ('[{"question": "a?", "answers": ["a"]}\n{}]', "Line 2 of .* neither a comma nor the end"),
        ('[{"question": "a?", "answers": ["a"]}]\n\n[]', "Line 3 of .* continues after the end"),
        ("[3]", "Question 1, line 1 of .* is not a JSON object"),
        ('[{"question": ' + "[" * 100_000, "Question 1, line 1 of .* is not valid JSON"),
        ('[{"question": ' + "9" * 5000 + "}]", "Question 1, line 1 of .* is not valid JSON"),
        ('[\n{"question": "", "answers": ["a"]}]', "Question 1, line 2 of .* has no question"),
        (
            '[{"question": "a?", "answers": ["a"], "positive_ctxs": {}, "ctxs": [1]}]',
            "ctxs that are not a list",
        ),
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
        monkeypatch.setattr("ragweave.knowledge.ingest.loaders.text.PIECE", step)
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
