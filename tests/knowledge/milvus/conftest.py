"""Knowledge bases that are published to Milvus Lite: the client and its protocol are those of a server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import count

import pytest

from ragweave import KnowledgeBase
from tests.support.databases import free_port
from tests.support.waiting import wait_until

_numbers = count()
WORDS = ("peru", "lima", "ulm", "danube", "river", "capital")
COUNT = 1200  # more than one batch


@pytest.fixture(scope="session")
def folder(tmp_path_factory, encoder) -> KnowledgeBase:
    """A knowledge base in a folder with metadata of several types, read-only for tests."""
    path = tmp_path_factory.mktemp("published")
    lines = []
    for n in range(COUNT):
        row = {
            "id": str(n),
            "title": f"Page {n}",
            "text": f"The {WORDS[n % 6]} of {WORDS[n // 6 % 6]}, number {n}.",
        }
        row |= {"year": 1990 + n % 40} if n % 3 else {"year": "unknown"} if n % 2 else {}
        row |= {"lang": ["en", "de", 'q"\\'][n % 3], "tags": ["a", "b"][: n % 3]}
        row |= {"checked": bool(n % 2)} if n % 5 == 0 else {}
        lines.append(json.dumps(row) + "\n")
    (path / "pages.jsonl").write_text("".join(lines))
    return KnowledgeBase.build([path / "pages.jsonl"], path / "kb", encoder=encoder, index="hnsw")


@pytest.fixture(scope="session")
def uri(tmp_path_factory) -> str:
    """A place in Milvus Lite, of which `published` is the first version."""
    return f"milvus://{tmp_path_factory.mktemp('milvus')}/kb.db?collection=pages"


@pytest.fixture(scope="session")
def published(folder, uri) -> KnowledgeBase:
    """The knowledge base, published; read-only for tests."""
    return folder.publish(uri)


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[str]:
    """The address of a server, a process of its own."""
    port, data = free_port(), tmp_path_factory.mktemp("server") / "data"
    options = ["--data-dir", str(data), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([sys.executable, "-m", "milvus_lite", "server", *options]) as process:
        wait_until(lambda: listens(port))
        yield f"127.0.0.1:{port}"
        process.kill()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def empty_uri(server) -> str:
    """A place on the server that a test may publish to."""
    return f"milvus+http://{server}?collection=kb{next(_numbers)}"
