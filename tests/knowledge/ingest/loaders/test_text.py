"""Text files: UTF-8 is decoded, anything else is refused with its position, and titles are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders import text as text_module
from ragweave.knowledge.ingest.loaders.text import first_heading, read_lines, title_from_name
from tests.support.documents import read, write


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.txt", "héllo\r\nyou\r", "héllo\nyou\n"),
        ("a.csv", "title,text\nT,héllo", "héllo"),
        ("a.jsonl", '{"text": "héllo"}', "héllo"),
    ],
)
def test_byte_order_mark_is_removed(tmp_path, name, content, text):
    documents = read(write(tmp_path / name, b"\xef\xbb\xbf" + content.encode()))
    assert documents[0].text == text


@pytest.mark.parametrize(
    ("name", "content", "offset"),
    [
        ("a.txt", b"one\nr\xe9sum\xe9", 5),
        ("a.txt", b"\xef\xbb\xbfr\xe9", 4),
        ("a.csv", b"title,text\nT,r\xe9sum\xe9\n", 14),
        ("a.jsonl", b'{"text": "ok"}\n{"text": "\xff"}\n', 25),
    ],
)
def test_undecodable_bytes_are_located(tmp_path, name, content, offset):
    path = write(tmp_path / name, content)
    with pytest.raises(SourceError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert f"offset {offset} " in str(caught.value)
    assert "iconv" in str(caught.value)


def test_a_binary_file_named_as_text(tmp_path):
    with pytest.raises(SourceError, match="zero byte at offset 2"):
        read(write(tmp_path / "a.txt", b"ab\0c"))


def test_an_enormous_line(tmp_path, monkeypatch):
    monkeypatch.setattr("ragweave.knowledge.ingest.loaders.text._LINE_AT_MOST", 2**20)
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n{"text": "' + "x" * 2**20 + '"}\n')
    with pytest.raises(SourceError, match=r"Line 2 of .* has more than 1 MiB"):
        list(read_lines(path))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_lines_across_pieces(tmp_path, monkeypatch, size):
    monkeypatch.setattr("ragweave.knowledge.ingest.loaders.text.PIECE", size)
    lines = ["one\r\n", "\n", "\r", "a longer líne\n", "\r\n", "last\r"]
    path = write(tmp_path / "a.txt", "".join(lines).encode())
    assert list(read_lines(path)) == list(enumerate(lines, start=1))


def test_the_work_for_a_line_grows_with_its_length_alone(tmp_path, monkeypatch):
    searched = 0

    class Counting:
        def finditer(self, text):
            nonlocal searched
            searched += len(text)
            return pattern.finditer(text)

    pattern = text_module._LINE_END
    monkeypatch.setattr(text_module, "_LINE_END", Counting())
    monkeypatch.setattr(text_module, "PIECE", 1000)
    work = []
    for length in (20_000, 80_000):
        searched, path = 0, write(tmp_path / "a.txt", b"x" * length)
        assert [len(line) for _, line in read_lines(path)] == [length]
        work.append(searched)
    assert work[1] <= 5 * work[0]


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", "x")

    def refuse(self, *args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceError, match="Permission denied"):
        read(path)


@pytest.mark.parametrize(
    ("markdown", "title"),
    [
        ("intro\n\n## Second level ##\n# First", "Second level"),
        ("```\n# a comment\n```\n# Real", "Real"),
        ("#hashtag\ntext", None),
        ("# C#\n", "C#"),
        ("# Open # closed ##  \n", "Open # closed"),
        ("# #\n## Next\n", "Next"),
        ("two\nlines\n===\n# Later", "two lines"),
        ("---\nTitle : 'Of “Peru”' \n---\n# Later", "Of “Peru”"),
        ("---\ntitle:\n---\n# Later", "Later"),
    ],
)
def test_first_heading(markdown, title):
    assert first_heading(markdown) == title


@pytest.mark.parametrize(
    ("stem", "title"),
    [("solar_power-plants", "Solar power plants"), ("2024-01-05-notes", "2024-01-05 notes"), ("___", "___")],
)
def test_title_from_name(stem, title):
    assert title_from_name(stem) == title
