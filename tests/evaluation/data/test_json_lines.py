"""JSON lines: our own form, and the fields of KILT and of DPR in lines."""

from __future__ import annotations

import pytest

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
    found = read_examples(path)
    assert parts(found) == [
        ("q1", "Where?", ("Lima", "Lima, Peru"), ("peru#0",)),
        ("2", "Who?", ("Ada",), ("ada", "lovelace")),
        ("7", "When?", ("1", "2"), ()),
        ("4", "Why?", ("so", "thus"), ("Reasons",)),
        ("5", "Which?", (), ("only", "these")),
    ]
    assert [own.where for own in found[:2]] == [f"line 1 of {path}", f"line 3 of {path}"]
    assert [own.label for own in found[2:4]] == [None, "odd"]


def test_only_as_many_as_are_asked_for_are_read(tmp_path):
    path = written(tmp_path / "dev.jsonl", *[{"question": f"{n}?", "answers": ["a"]} for n in range(3)], "{")
    assert [own.question for own in read_examples(path, limit=2)] == ["0?", "1?"]
    with pytest.raises(DataError, match="line 4 of"):
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
        ("{", "line 2 of .* is not valid JSON"),
        ("[" * 100_000, "line 2 of .* is not valid JSON"),
        ("9" * 5000, "line 2 of .* is not valid JSON"),
        ("[1]", "line 2 of .* is not a JSON object"),
        ({"answers": ["a"]}, "line 2 of .* lacks 'question' .it has 'answers'.: name the column"),
        ({"question": "", "answers": ["a"]}, "line 2 of .* has no question"),
        ({"question": " \t", "answers": ["a"]}, "line 2 of .* has no question"),
        ({"question": None, "answers": ["a"]}, "line 2 of .* has no question"),
        ({"question": 3, "answers": ["a"]}, "line 2 of .* has no question"),
        ({"question": "a?"}, "line 2 of .* lacks 'answers'"),
        ({"question": "a?", "answers": "Lima"}, "line 2 of .* has answers that are no list"),
        ({"question": "a?", "answers": {"a": 1}}, "line 2 of .* has answers that are no list"),
        ({"question": "a?", "answers": []}, "line 2 of .* has no answers"),
        ({"question": "a?", "answers": None}, "line 2 of .* has no answers"),
        ({"question": "a?", "answers": [""]}, "line 2 of .* has the answer '', which is no text"),
        ({"question": "a?", "answer": " "}, "line 2 of .* has the answer ' ', which is no text"),
        ({"question": "a?", "answers": [None]}, "line 2 of .* has the answer 'None'"),
        ({"question": "a?", "answers": [True]}, "line 2 of .* has the answer 'True'"),
        ({"question": "a?", "answers": [["a"]]}, "line 2 of .* has the answer \"\\['a'\\]\""),
        ({"question": "a?", "answer": {"value": "a"}}, "line 2 of .* has answers that are no list"),
        ({"question": "a?", "answers": ["a"], "passages": 1.5}, "line 2 of .* passages that are no list"),
        ({"question": "a?", "answers": ["a"], "passages": [{}]}, "line 2 of .* has the passage '{}'"),
        ({"question": "a?", "answers": ["a"], "id": 1.5}, "line 2 of .* has the id '1.5'"),
        ({"question": "a?", "answers": ["a"], "contexts": "b"}, "line 2 of .* contexts that are no list"),
        ({"question": "a?", "answers": ["a"], "contexts": [3]}, "line 2 of .* has the context '3'"),
        ({"question": "a?", "answers": ["a"], "contexts": [{"id": "b"}]}, "line 2 of .* has the text 'None'"),
        (
            {"question": "a?", "answers": ["a"], "contexts": [{"text": "b", "gold": "yes"}]},
            "line 2 of .* has the context .* gold .true or false",
        ),
        ({"id": "1", "question": "a?", "answers": ["a"]}, "line 2 of .* has the id '1' of line 1"),
        ({"id": "1", "question": "ok?", "answers": ["a"]}, "line 2 of .* has the id '1' of line 1"),
        ('{"question": "\\ud83d?", "answers": ["a"]}', "line 2 of .* half of a surrogate pair"),
        (
            '{"question": "a?", "answers": ["b\\ude00"]}',
            "line 2 of .* half of a surrogate pair at character 1",
        ),
    ],
)
def test_lines_that_cannot_be_read(tmp_path, line, message):
    path = written(tmp_path / "dev.jsonl", {"question": "ok?", "answers": ["a"]}, line)
    with pytest.raises(DataError, match=message):
        read_examples(path, contexts=True)


def test_text_that_is_none(tmp_path):
    path = tmp_path / "dev.jsonl"
    path.write_bytes(b'{"question": "\xe9", "answers": ["a"]}\n')
    with pytest.raises(DataError, match=r"is not UTF-8 text: byte 0xe9 at offset 14"):
        read_examples(path)
    path.write_bytes(b'{"question": "a?", "answers": ["a"]}\n\0\n')
    with pytest.raises(DataError, match="zero byte at offset 37"):
        read_examples(path)
    path.write_bytes(b'{"question": "a?", "answers": ["a"]}\n' + b" " * (64 * 2**20 + 1))
    with pytest.raises(DataError, match=r"Line 2 of .* has more than 64 MiB"):
        read_examples(path)


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


def test_other_data_may_have_an_input_and_an_output_too(tmp_path):
    line = {"instruction": "Where?", "input": "", "output": "Lima"}
    columns = {"question": "instruction", "answer": "output"}
    found = read_examples(written(tmp_path / "dev.jsonl", line), columns=columns)
    assert parts(found) == [("1", "Where?", ("Lima",), ())]
    line = {"question": "Where?", "input": "", "output": "Lima", "answers": ["Lima"]}
    assert parts(read_examples(written(tmp_path / "dev.jsonl", line))) == parts(found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"input": "a?", "output": "x"}, "line 1 of .* 'output' that is no list of objects, as KILT has it"),
        ({"input": "a?", "output": ["x"]}, "line 1 of .* 'output' that is no list"),
        ({"input": "a?", "output": [{"provenance": ["x"]}]}, "line 1 of .* 'provenance' that is no list"),
        ({"input": "", "output": [{"answer": "x"}]}, "line 1 of .* has no question"),
        ({"input": "a?", "output": []}, "line 1 of .* has no answers"),
    ],
)
def test_lines_of_kilt_that_cannot_be_read(tmp_path, line, message):
    with pytest.raises(DataError, match=message):
        read_examples(written(tmp_path / "kilt.jsonl", line))


def test_a_retrievers_output_in_lines(tmp_path):
    line = {
        "question": "Where?",
        "answers": ["Lima"],
        "ctxs": [{"id": "4", "title": "Peru", "text": "Lima."}],
    }
    (found,) = read_examples(written(tmp_path / "out.jsonl", line), contexts=True)
    assert found.gold_passages == ()
    assert found.contexts == (GivenPassage("Lima.", "Peru", "4"),)
