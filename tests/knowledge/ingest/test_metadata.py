"""Where metadata comes from: front matter, columns, options, and the file."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ragweave import ReadSettings
from ragweave.errors import ConfigurationError, OmissionWarning
from ragweave.knowledge.ingest.loaders.loader import read_documents
from ragweave.knowledge.ingest.metadata import cleaned, front_matter, parse_options

FACTS = {"modified", "type"}


def metadata_of(path, **settings):
    documents = read_documents([path], ReadSettings(**settings))
    return [{k: v for k, v in one.metadata.items() if k not in FACTS} for one in documents]


def test_facts_of_the_file(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("Text.")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    (document,) = read_documents([path])
    assert document.metadata == {"modified": "2023-11-14T22:13:20Z", "type": "md"}
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("in/c.txt", "Text.")
    os.utime(tmp_path / "b.zip", (1_700_000_000, 1_700_000_000))
    (member,) = read_documents([tmp_path / "b.zip"])
    assert member.metadata == {"modified": "2023-11-14T22:13:20Z", "type": "txt"}


def test_front_matter(tmp_path):
    (tmp_path / "a.md").write_text(
        "---\ntitle: Roof\nDue date: 2026-05-01\ntags: [roof, 7]\nyear: 2020\nshare: .5\nok: true\nnone:\n"
        "author: {name: Ada, deep: {x: 1}}\nclass: A\n---\n# Text\n\nThe roof."
    )
    assert metadata_of(tmp_path / "a.md") == [
        {
            "title": "Roof",
            "Due_date": "2026-05-01",
            "tags": ["roof", 7],
            "year": 2020,
            "share": 0.5,
            "ok": True,
            "author_name": "Ada",
            "class_": "A",
        }
    ]
    (tmp_path / "a.md").write_text("+++\nyear = 2021\nwhen = 2026-01-02T03:04:05Z\n+++\nText.")
    assert metadata_of(tmp_path / "a.md") == [{"year": 2021, "when": "2026-01-02T03:04:05+00:00"}]


@pytest.mark.parametrize(
    "fields",
    [
        "a: [",
        "- just\n- a list",
        "!!python/object/apply:os.system ['true']",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "a: " + "[" * 5000,
        "5",
        "",
    ],
)
def test_damaged_front_matter_is_no_metadata(fields):
    assert front_matter(f"---\n{fields}\n---\nText.") == {}


def test_columns_of_tables(tmp_path):
    (tmp_path / "a.csv").write_text(
        "id,text,year,code,share,lang\n1,One.,2020,007,-0.5,en\n2,Two.,n/a,,1e3,\n"
    )
    assert metadata_of(tmp_path / "a.csv") == [
        {"year": 2020, "code": "007", "share": -0.5, "lang": "en"},
        {"year": "n/a", "share": "1e3"},
    ]
    (tmp_path / "b.csv").write_text("Name,Born\nAda Lovelace,1815\n")  # without a text, every column is one
    assert metadata_of(tmp_path / "b.csv") == [{"Name": "Ada Lovelace", "Born": 1815}]
    table = pa.table(
        {"text": ["One."], "year": [2020], "when": [date(2026, 1, 2)], "embeddings": [[0.5, 1.5]]}
    )
    pq.write_table(table, tmp_path / "c.parquet")
    with pytest.warns(OmissionWarning, match="embeddings"):
        assert metadata_of(tmp_path / "c.parquet") == [{"year": 2020, "when": "2026-01-02"}]


def test_fields_of_json_lines(tmp_path):
    record = {
        "text": "One.",
        "year": "2020",
        "metadata": {"lang": "en"},
        "tags": ["a", 1],
        "long": "x" * 1001,
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    with pytest.warns(OmissionWarning, match="the columns long are left out"):
        assert metadata_of(tmp_path / "a.jsonl") == [{"year": "2020", "lang": "en", "tags": ["a", 1]}]


def test_metadata_of_all_documents(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "One.", "lang": "en", "year": 1}')
    (tmp_path / "b.txt").write_text("Two.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metadata_of(tmp_path, metadata={"lang": "de"}) == [{"lang": "de", "year": 1}, {"lang": "de"}]


def test_options():
    options = ["year=2020", "lang= en ", "tag=a", "tag=b", "code=007", "share=0.5"]
    expected = {"year": 2020, "lang": "en", "tag": ["a", "b"], "code": "007", "share": 0.5}
    assert parse_options(options) == expected
    for wrong in ("year", "=1", "two words=1", "class=1", "a="):
        with pytest.raises(ConfigurationError, match="NAME=VALUE"):
            parse_options([wrong])


def test_values_that_cannot_be_kept():
    fields = {
        "a\0": "x\0y",
        "b": "\ud800",
        "c": float("nan"),
        "d": 2**70,
        "e": [],
        "f": b"x",
        "!": 1,
        "2nd": 1,
    }
    kept = cleaned(fields)
    assert kept == {"a": "x\ufffdy", "b": "?", "_2nd": 1}
    json.dumps(kept).encode()
