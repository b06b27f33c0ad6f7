"""URIs of databases: what they name, that passwords stay hidden, and which extra a missing client needs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ragweave import KnowledgeBase
from ragweave.errors import ConfigurationError, MissingExtraError
from ragweave.knowledge.layout import PostgresUri, is_uri, location_of, parse_uri


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("kb", False),
        ("/data/kb.db", False),
        ("notes:2026", False),
        (Path("kb"), False),
        ("postgresql://host/db", True),
        ("mysql://host", True),
    ],
)
def test_what_is_a_uri(path, expected):
    assert is_uri(path) is expected


def test_locations():
    assert location_of("kb") == location_of(Path("kb")) == Path("kb")
    assert location_of("postgresql://ann:secret@host/db") == parse_uri("postgresql://ann:secret@host/db")


def test_a_uri_that_was_made_a_path():
    with pytest.raises(ConfigurationError, match="as a string"):
        is_uri(Path("postgresql://host/?table=kb"))


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
    parsed = parse_uri(uri)
    assert isinstance(parsed, PostgresUri)
    assert (parsed.conninfo, parsed.table, parsed.shown, parsed.host) == (conninfo, table, shown, host)
    assert "pass" not in repr(parsed) + str(parsed)
    for spelled in ("pass word", "pass%20word") if "pass" in uri else ():
        assert parsed.without_secrets(f"cannot read {spelled}") == "cannot read ***"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("redis://host/0", "no database for redis://"),
        ("milvus://host/?collection=kb", "Give milvus\\+http://host"),
        ("milvus:///kb?collection=kb", "milvus:///folder/file.db"),
        ("milvus+http://host?collection=a-b", "ends in \\?collection=NAME"),
        ("postgresql://ann:secret@host/db?table=a;drop", "not a plain name"),
        ("postgresql://host/db?table=a.b.c", "not a plain name"),
        (f"postgresql://host/db?table={'a' * 51}", "at most 50"),
    ],
)
def test_mistakes(uri, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse_uri(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("missing", ["psycopg", "pgvector"])
def test_the_extra_of_a_missing_client_is_named(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=rf"'{missing}', .*pip install 'ragweave\[pgvector\]'"):
        KnowledgeBase.open("postgresql://localhost/db")
