"""Which format a file has."""

from __future__ import annotations

import pytest

from ragweave.errors import DataError
from ragweave.evaluation.data import FORMATS, read_examples
from tests.support.questions import written

LINE = '{"question": "a?", "answers": ["b"]}'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dev.jsonl", LINE),
        ("DEV.JSONL", f"\n\n{LINE}"),
        ("dev.json", LINE),
        ("dev.json", f"{LINE}\n{LINE}"),
        ("CuratedTrec-test.txt", LINE),
        ("dev", f"[{LINE}]"),
        ("dev.json", f" \n[{LINE}]"),
        ("dev.jsonl", f"[\n{LINE}\n]"),
        ("dev.csv", "a?\t['b']"),
        ("dev.csv", "question,answer\na?,b"),
        ("dev.TSV", "question\tanswer\na?\tb"),
    ],
)
def test_endings_and_first_lines(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    found = read_examples(tmp_path / name)[0]
    assert (found.question, found.answers) == ("a?", ("b",))


def test_a_first_line_longer_than_what_is_read_at_a_time(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(f'[{{"question": "a?", "answers": ["b"], "more": "{"x" * 2**21}"}}]')
    assert read_examples(path)[0].answers == ("b",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "dev.txt",
            "a?",
            "Neither the ending of .* nor its first line says its format: name it with --format",
        ),
        ("dev.json", '{\n"question": "a?"\n}', "one JSON object over several lines"),
        ("dev.json", "", "Neither the ending"),
        ("dev.jsonl", "", "There are no questions in"),
        ("dev.csv", "\n\n", "There are no questions in"),
        ("dev.jsonl.gz", "\x1f", "is packed: unpack it first"),
    ],
)
def test_files_that_say_too_little(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_examples(tmp_path / name)


def test_files_and_formats_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*: check the path, or add --format dataset"):
        read_examples(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match=r"There is no file .*: check the path\.$"):
        read_examples(tmp_path / "nothing.jsonl", format="jsonl")
    with pytest.raises(DataError, match=f"no format 'xml'; choose among {', '.join(FORMATS)}"):
        read_examples(tmp_path / "dev.txt", format="xml")
    with pytest.raises(DataError, match="limit is 0: ask for at least 1"):
        read_examples(written(tmp_path / "dev.jsonl", LINE), limit=0)
