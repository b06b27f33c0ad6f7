import os
import time
from pathlib import Path

import pytest

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.loader import read_documents
from ragweave.knowledge.ingest.loaders.text import first_heading, title_from_name
from ragweave.types import Document


def read(*sources: Path) -> list[Document]:
    return list(read_documents(sources))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_folder_is_read_in_sorted_order_with_relative_ids(tmp_path):
    write(tmp_path / "b" / "z.txt", "Z text")
    write(tmp_path / "b" / "a.md", "# A title\n\ntext")
    write(tmp_path / "a_first.txt", "first")
    write(tmp_path / "c.png", "not read")
    write(tmp_path / ".hidden" / "h.txt", "not read")
    write(tmp_path / "D.TXT", "upper case")
    documents = read(tmp_path)
    assert [(document.id, document.title) for document in documents] == [
        ("D.TXT", "D"),
        ("a_first.txt", "A first"),
        ("b/a.md", "A title"),
        ("b/z.txt", "Z"),
    ]
    assert documents[2].text == "# A title\n\ntext"
    assert documents[2].source == str(tmp_path / "b" / "a.md")


def test_name_that_is_not_utf8(tmp_path):
    (tmp_path / os.fsdecode(b"r\xe9.txt")).write_text("x")
    with pytest.raises(SourceError, match="rename"):
        read(tmp_path)


def test_single_file_is_named_by_its_own_name(tmp_path):
    assert [d.id for d in read(write(tmp_path / "deep" / "notes.txt", "text"))] == ["notes.txt"]


def test_csv_with_and_without_ids(tmp_path):
    plain = write(tmp_path / "a.csv", 'Title, TEXT \nBo,"two\nlines, and ""quotes"""\n\nUlm,city\n')
    with_id = write(tmp_path / "b.csv", "id,text,title,more\nx,text,T,1\n,other,T,2\n")
    assert [(d.id, d.title, d.text) for d in read(plain, with_id)] == [
        ("a.csv:2", "Bo", 'two\nlines, and "quotes"'),
        ("a.csv:5", "Ulm", "city"),
        ("x", "T", "text"),
        ("b.csv:3", "T", "other"),
    ]


def test_tsv_and_a_field_above_pythons_limit(tmp_path):
    text = "word " * 100_000
    documents = read(write(tmp_path / "a.tsv", f"title\ttext\nLong\t{text}\n"))
    assert documents[0].text == text


def test_jsonl(tmp_path):
    lines = (
        '{"id": "x", "title": "T", "text": "one"}\n\n{"text": "two"}\n{"id": 7, "title": null, "text": "3"}\n'
    )
    documents = read(write(tmp_path / "d" / "a.jsonl", lines).parent)
    assert [(d.id, d.title, d.text) for d in documents] == [
        ("x", "T", "one"),
        ("a.jsonl:3", "", "two"),
        ("7", "", "3"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.txt", "héllo\r\nyou\r", "héllo\nyou\n"),
        ("a.csv", "title,text\nT,héllo", "héllo"),
        ("a.jsonl", '{"text": "héllo"}', "héllo"),
    ],
)
def test_byte_order_mark_is_taken_off(tmp_path, name, content, text):
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
def test_undecodable_bytes_are_placed(tmp_path, name, content, offset):
    path = write(tmp_path / name, content)
    with pytest.raises(SourceError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert f"offset {offset} " in str(caught.value)
    assert "iconv" in str(caught.value)


def test_binary_file_with_the_name_of_a_text(tmp_path):
    with pytest.raises(SourceError, match="zero byte at offset 2"):
        read(write(tmp_path / "a.txt", b"ab\0c"))


def test_no_sources():
    with pytest.raises(SourceError, match="No source"):
        read()


def test_missing_file_is_found_before_anything_is_read(tmp_path):
    write(tmp_path / "a.txt", "text")
    with pytest.raises(SourceError, match=r"There is no file or folder .*gone"):
        read_documents([tmp_path, tmp_path / "gone.txt"])


@pytest.mark.parametrize(("files", "words"), [([], "is empty"), (["a.png"], "no file that can be read")])
def test_folder_without_readable_files(tmp_path, files, words):
    for name in files:
        write(tmp_path / name, "x")
    with pytest.raises(SourceError, match=words) as caught:
        read(tmp_path)
    assert ".jsonl" in str(caught.value)


def test_file_of_another_kind(tmp_path):
    with pytest.raises(SourceError, match=r"\.txt"):
        read(write(tmp_path / "a.png", "x"))


def test_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(SourceError, match="kind"):
        read(tmp_path / "a.txt")


def test_csv_without_the_columns_names_those_found(tmp_path):
    with pytest.raises(SourceError, match=r"lacks the column text \(found: 'title', 'body'\)"):
        read(write(tmp_path / "a.csv", "title,body\nx,y\n"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("title,text\nx,y,z\n", "line 2 .* has 3 fields, the first line has 2"),
        ("title,text\nok,ok\nx\n", "line 3 .* has 1 fields"),
        ('title,text\nx,"never closed\n', "cannot be read as a table"),
    ],
)
def test_damaged_tables(tmp_path, content, words):
    with pytest.raises(SourceError, match=words):
        read(write(tmp_path / "a.csv", content))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not valid JSON"),
        ('["a"]', "not an object"),
        ('{"title": "T"}', "key 'text'"),
        ('{"text": 5}', "'text' that is not a string"),
        ('{"text": "x", "title": []}', "'title' that is not a string"),
        ('{"text": "x", "id": true}', "'id'"),
        ('{"text": "x", "id": " "}', "'id'"),
        ("[" * 100_000, "not valid JSON"),
        ('{"text": "x \\ud83d"}', "surrogate"),
        ('{"text": "x", "id": "\\udc00"}', "surrogate"),
    ],
)
def test_bad_json_lines_are_numbered(tmp_path, line, words):
    path = write(tmp_path / "a.jsonl", f'{{"text": "good"}}\n{line}\n')
    with pytest.raises(SourceError, match=words) as caught:
        read(path)
    assert str(caught.value).startswith(f"Line 2 of {path}")


def test_duplicate_ids_name_both_files(tmp_path):
    one, two = write(tmp_path / "one" / "a.txt", "x"), write(tmp_path / "two" / "a.txt", "y")
    with pytest.raises(SourceError, match=r"id 'a\.txt'") as caught:
        read(one, two)
    assert str(one) in str(caught.value)
    assert str(two) in str(caught.value)


def test_links_that_lead_back_do_not_hang_and_read_once(tmp_path):
    write(tmp_path / "a" / "x.txt", "text")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    began = time.monotonic()
    assert [document.text for document in read(tmp_path)] == ["text"]
    assert time.monotonic() - began < 5


def test_link_to_nothing(tmp_path):
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(SourceError, match="cannot be read"):
        read(tmp_path)


def test_file_that_may_not_be_read(tmp_path, monkeypatch):
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
