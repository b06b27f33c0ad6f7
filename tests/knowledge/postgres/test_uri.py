"""Taking the URIs of databases apart, and keeping passwords out of what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragweave.errors import ConfigurationError
from ragweave.knowledge.postgres.uri import MilvusUri, PostgresUri, is_uri, parse


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("kb", False),
        ("/data/kb.db", False),
        ("notes:2026", False),
        (Path("kb"), False),
        ("postgresql://host/db", True),
        ("milvus:///data/kb.db", True),
        ("mysql://host", True),
    ],
)
def test_what_is_a_uri(place, expected):
    assert is_uri(place) is expected


def test_a_uri_that_was_made_a_path():
    with pytest.raises(ConfigurationError, match="give it as a string"):
        is_uri(Path("milvus://host/?collection=kb"))


@pytest.mark.parametrize(
    ("uri", "conninfo", "table", "shown", "host"),
    [
        (
            "postgresql://ann@db.example/rag?table=kb",
            "postgresql://ann@db.example/rag",
            ("kb",),
            "postgresql://ann@db.example/rag?table=kb",
            "db.example",
        ),
        (
            "postgres://ann:pass%20word@db:5433,other:5434/rag?sslmode=require&table=own.kb",
            "postgresql://ann:pass%20word@db:5433,other:5434/rag?sslmode=require",
            ("own", "kb"),
            "postgresql://ann@db:5433,other:5434/rag?sslmode=require&table=own.kb",
            "db:5433,other:5434",
        ),
        (
            "postgresql:///rag?host=/run/postgresql&password=pass%20word",
            "postgresql:///rag?host=/run/postgresql&password=pass%20word",
            ("ragweave",),
            "postgresql:///rag?host=/run/postgresql&table=ragweave",
            "/run/postgresql",
        ),
        (
            "postgresql:///rag",
            "postgresql:///rag",
            ("ragweave",),
            "postgresql:///rag?table=ragweave",
            "the local socket",
        ),
    ],
)
def test_postgresql(uri, conninfo, table, shown, host):
    parsed = parse(uri)
    assert isinstance(parsed, PostgresUri)
    assert (parsed.conninfo, parsed.table, parsed.shown, parsed.host) == (conninfo, table, shown, host)
    assert "pass" not in repr(parsed)
    for spelled in ("pass word", "pass%20word") if "pass" in uri else ():
        assert parsed.without_secrets(f"cannot read {spelled}") == "cannot read ***"


@pytest.mark.parametrize(
    ("uri", "address", "database", "collection", "host"),
    [
        ("milvus://db.example/?collection=kb", "http://db.example:19530", "", "kb", "db.example:19530"),
        ("milvus://db:443/own?collection=kb&secure=true", "https://db:443", "own", "kb", "db:443"),
        ("milvus:///data/a%20b/kb.db", "/data/a b/kb.db", "", "ragweave", "/data/a b/kb.db"),
    ],
)
def test_milvus(uri, address, database, collection, host):
    parsed = parse(uri)
    assert isinstance(parsed, MilvusUri)
    assert (parsed.address, parsed.database, parsed.collection, parsed.host) == (
        address,
        database,
        collection,
        host,
    )
    assert parsed.file == (Path(address) if address.startswith("/") else None)


def test_a_file_below_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse("milvus://./kb.db?collection=kb").file == tmp_path / "kb.db"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("redis://host/0", "no database for redis://"),
        ("postgresql://host/db?table=a;drop", "no plain name"),
        ("postgresql://host/db?table=a.b.c", "no plain name"),
        (f"postgresql://host/db?table={'a' * 51}", "at most 50"),
        ("milvus://host/?collection=my-kb", "no plain name"),
        ("milvus://host/?table=kb", "no parameter 'table'; it has collection"),
        ("milvus://ann:secret@host/?collection=kb", "environment variable MILVUS_TOKEN"),
        ("milvus://host/?secure=yes", "give true or false"),
        ("milvus:///data/kb", "ends in .db"),
    ],
)
def test_mistakes(uri, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse(uri)
    assert "secret" not in str(caught.value)
