"""CSV, TSV, JSON lines, Parquet and Arrow: one document per row, and errors that name the row."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.chunking import chunk
from ragweave.knowledge.ingest_settings import Chunking
from tests.support.documents import read, write


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


def test_csv_with_a_title_and_without_a_text(tmp_path):
    (document,) = read(write(tmp_path / "a.csv", "title,body,year\nx,y,2024\n"))
    assert (document.id, document.title) == ("a.csv:2", "x")
    assert document.text == "title: x\nbody: y\nyear: 2024"


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
    ("line", "words"),
    [
        ("{", "not valid JSON"),
        ('["a"]', "not an object"),
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


def test_passages_of_dpr_and_kilt(tmp_path):
    path = write(tmp_path / "psgs.tsv", 'id\ttext\ttitle\n1\t"Aaron is ""a"" prophet"\tAaron\n')
    assert [(d.id, d.title, d.text) for d in read(path)] == [("1", "Aaron", 'Aaron is "a" prophet')]
    page = {
        "_id": "7",
        "wikipedia_id": "7",
        "wikipedia_title": "Peru",
        "text": ["Peru\n", "Lima is its capital.\n"],
    }
    (document,) = read(write(tmp_path / "kilt.jsonl", json.dumps(page) + "\n"))
    assert (document.id, document.title, document.text) == ("7", "Peru", "Peru\n\nLima is its capital.")


def test_parquet_and_a_saved_data_set(tmp_path):
    rows = Dataset.from_dict(
        {"id": ["a", "b"], "title": ["A", None], "text": ["Lima.", "Ulm."], "more": [1, 2]}
    )
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    assert [(d.id, d.title, d.text, d.place.row) for d in read(tmp_path / "rows.parquet")] == [
        ("a", "A", "Lima.", 1),
        ("b", "", "Ulm.", 2),
    ]
    rows.remove_columns(["id", "title"]).save_to_disk(str(tmp_path / "saved"))
    documents = read(tmp_path / "saved")
    assert [document.text for document in documents] == ["Lima.", "Ulm."]
    assert documents[1].id.endswith(".arrow:2")


def test_parquet_with_a_row_without_its_text(tmp_path):
    Dataset.from_dict({"text": ["x", None]}).to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(SourceError, match="Row 2"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("words", [100, 4])
def test_columns_stay_lines_in_passages(tmp_path, words):
    path = write(tmp_path / "a.csv", "name,height in m,river\nUlm an der Donau,478,Danube\nLima,154,Rimac\n")
    ulm = ["name: Ulm an der Donau", "height in m: 478", "river: Danube"]
    lima = ["name: Lima", "height in m: 154", "river: Rimac"]
    lines = []
    for document in read(path):
        passages = chunk(document, Chunking(words=words))
        assert [document.text[passage.start : passage.end] for passage in passages] == [
            p.text for p in passages
        ]
        lines.append([line for passage in passages for line in passage.text.split("\n")])
        assert (len(passages) == 1) is (words == 100)
    assert lines == [ulm, lima]
