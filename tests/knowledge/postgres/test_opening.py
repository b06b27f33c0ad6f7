"""What is told when a database's client is not installed."""

from __future__ import annotations

import importlib.util

import pytest

from ragweave import KnowledgeBase
from ragweave.errors import MissingExtraError


@pytest.mark.parametrize(
    ("missing", "uri", "extra"),
    [
        ("psycopg", "postgresql://localhost/db", "pgvector"),
        ("pgvector", "postgresql://localhost/db", "pgvector"),
        ("pymilvus", "milvus://localhost", "milvus"),
        ("milvus_lite", "milvus://./kb.db", "milvus"),
    ],
)
def test_the_extra_is_named(missing, uri, extra, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name, *rest)
    )
    with pytest.raises(MissingExtraError, match=rf"'{missing}', .*pip install 'ragweave\[{extra}\]'"):
        KnowledgeBase.open(uri)
