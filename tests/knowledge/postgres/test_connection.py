"""Connections to servers that are missing, stop and start again; no message shows a password."""

from __future__ import annotations

import numpy as np
import pytest

from ragweave import KnowledgeBase
from ragweave.errors import ConfigurationError, KnowledgeBaseError
from tests.support.databases import PASSWORD, Postgres, free_port

QUESTION = np.ones((1, 16), dtype=np.float32)


@pytest.fixture
def own_server(tmp_path_factory):
    """A server that one test may stop."""
    server = Postgres(tmp_path_factory.mktemp("own") / "data")
    yield server
    server.close()


def test_a_server_that_restarts_in_the_middle(own_server, notes, tiny_encoder):
    uri = own_server.uri()
    base = KnowledgeBase.build([notes], uri, encoder=tiny_encoder)
    expected = base.search(QUESTION, 3)[1].tolist()
    passages = base.passages(expected[0])
    own_server.stop()
    for call in (
        lambda: base.search(QUESTION, 3),
        base.latest,
        lambda: base.add([notes], encoder=tiny_encoder),
        lambda: KnowledgeBase.open(uri),
    ):
        with pytest.raises(KnowledgeBaseError, match="PostgreSQL at") as caught:
            call()
        assert PASSWORD not in str(caught.value)
        assert "kb" in str(caught.value)
    own_server.start()
    assert base.search(QUESTION, 3)[1].tolist() == expected
    assert base.passages(expected[0]) == passages
    own_server.stop()
    own_server.start()
    (notes / "ulm.txt").write_text("Ulm lies in the south.")
    assert len(base.add([notes], encoder=tiny_encoder)) == 3


def test_a_server_that_is_not_there(notes, tiny_encoder):
    host = f"127.0.0.1:{free_port()}"
    uri = f"postgresql://ann:geheim-17@{host}/db?table=kb"
    for call in (
        lambda: KnowledgeBase.open(uri),
        lambda: KnowledgeBase.build([notes], uri, encoder=tiny_encoder),
    ):
        with pytest.raises(KnowledgeBaseError, match=host) as caught:
            call()
        assert PASSWORD not in str(caught.value)


def test_a_uri_that_libpq_cannot_read():
    for uri in (
        "postgresql://ann:geheim-17@host:port:3/db",
        "postgresql://ann:geheim-17%zz@host/db?colour=red",
    ):
        with pytest.raises((ConfigurationError, KnowledgeBaseError)) as caught:
            KnowledgeBase.open(uri)
        assert PASSWORD not in str(caught.value)


def test_a_knowledge_base_that_is_not_there(uri):
    with pytest.raises(KnowledgeBaseError, match="There is no knowledge base at"):
        KnowledgeBase.open(uri)


def test_tables_of_other_programs_are_left_alone(postgres, notes, tiny_encoder):
    with postgres.connect() as connection:
        connection.execute("CREATE TABLE theirs (n int); INSERT INTO theirs VALUES (7)")
        with pytest.raises(KnowledgeBaseError, match=r"table .*theirs.* exists and is not a knowledge base"):
            KnowledgeBase.build([notes], postgres.uri("theirs"), encoder=tiny_encoder, overwrite=True)
        assert connection.execute("SELECT n FROM theirs").fetchall() == [(7,)]
