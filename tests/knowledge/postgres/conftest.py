from __future__ import annotations

import pytest

from ragweave import KnowledgeBase
from tests.support.databases import Milvus, Postgres

SERVERS = {"postgresql": Postgres, "milvus": Milvus}


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Servers that run already, by their kinds; each is started when it is asked for."""
    running = {}

    def server(kind):
        if kind not in running:
            running[kind] = SERVERS[kind](tmp_path_factory.mktemp(kind) / "data")
        return running[kind]

    yield server
    for one in running.values():
        one.close()


@pytest.fixture(params=sorted(SERVERS))
def server(request, servers):
    return servers(request.param)


@pytest.fixture
def postgres(servers):
    return servers("postgresql")


@pytest.fixture
def milvus(servers):
    return servers("milvus")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Writes to a server in the next process are seen at once."""
    from ragweave.knowledge.databases.milvus import lease

    for name, seconds in (("SETTLED", 0.01), ("RENEWED", 0.05), ("GONE", 0.4)):
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    (folder / "old").mkdir(parents=True)
    (folder / "peru.txt").write_text("Lima is the capital of peru.")
    (folder / "ulm.txt").write_text("Ulm is on the danube.")
    (folder / "old" / "river.txt").write_text("The river is a river.")
    return folder


@pytest.fixture
def kb(server, notes, tiny_encoder):
    return KnowledgeBase.build([notes], server.uri(), encoder=tiny_encoder)
