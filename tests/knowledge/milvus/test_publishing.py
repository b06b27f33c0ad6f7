"""Versions in Milvus are put in force when they are complete, and a publication that is killed changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ragweave import KnowledgeBase
from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge.base import roll_back

KILLED = """
import os, signal, sys
from ragweave.knowledge.milvus import publishing
from ragweave import KnowledgeBase

folder, uri, method, calls = sys.argv[1:]
connect, left = publishing.connect, [int(calls)]

def counted(uri):
    client = connect(uri)
    call = getattr(client, method)
    def last(*args, **options):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)
    setattr(client, method, last)
    return client

publishing.connect = counted
KnowledgeBase.open(folder).publish(uri)
"""


@pytest.fixture
def kb(notes, tmp_path, encoder) -> KnowledgeBase:
    """Three short documents in a folder."""
    return KnowledgeBase.build([notes], tmp_path / "kb", encoder=encoder)


def texts(uri: str) -> list[str]:
    base = KnowledgeBase.open(uri)
    found = sorted(passage.text for passage in base.passages(range(len(base))))
    base.close()
    return found


def collections(uri: str) -> list[str]:
    from pymilvus import MilvusClient

    address, _, name = uri.removeprefix("milvus+").partition("?collection=")
    client = MilvusClient(address)
    names = [one for one in client.list_collections() if one.startswith(f"{name}_")]
    client.close()
    return names


def test_a_new_version_takes_the_place_of_the_old_one(kb, empty_uri, notes, encoder) -> None:
    first = kb.publish(empty_uri)
    (notes / "new.txt").write_text("Peru is new.")
    second = kb.add([notes], encoder=encoder)
    assert len(second.publish(empty_uri)) == 4
    assert len(first.passages(range(3))) == 3  # an open reader keeps its version
    assert len(first.latest()) == 4
    assert "Peru is new." in texts(empty_uri)
    assert len(roll_back(empty_uri)) == 3
    assert "Peru is new." not in texts(empty_uri)
    assert first.latest() is first
    with pytest.raises(KnowledgeBaseError, match="No older version"):
        roll_back(empty_uri)
    assert len(second.publish(empty_uri)) == 4  # it is there: only the alias is switched
    third = second.delete(ids=["ulm.txt"])
    assert len(third.publish(empty_uri, keep=0)) == 3
    assert len(collections(empty_uri)) == 1


def test_a_released_version_is_loaded_when_it_is_opened(kb, empty_uri) -> None:
    from pymilvus import MilvusClient

    kb.publish(empty_uri).close()
    client = MilvusClient(empty_uri.removeprefix("milvus+").partition("?")[0])
    client.release_collection(*collections(empty_uri))
    client.close()
    assert len(texts(empty_uri)) == 3


def test_an_unchanged_version_is_not_sent_again(kb, empty_uri, monkeypatch) -> None:
    version = kb.publish(empty_uri).version
    monkeypatch.setattr(type(kb.storage), "shards", None)
    assert kb.publish(empty_uri).version == version


@pytest.mark.parametrize(
    ("method", "calls"),
    [
        ("create_index", 0),
        ("upsert", 1),
        ("alter_collection_properties", 0),
        ("alter_alias", 0),
        ("drop_collection", 0),
    ],
)
def test_a_killed_publication_leaves_what_was_in_force(
    folder, kb, empty_uri, method: str, calls: int
) -> None:
    for base in (kb, kb.delete(ids=["ulm.txt"])) if method == "drop_collection" else (kb,):
        base.publish(empty_uri).close()
    before = texts(empty_uri)
    command = [sys.executable, "-c", KILLED, str(folder.path), empty_uri, method, str(calls)]
    killed = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (len(texts(empty_uri)) == len(folder)) == (method == "drop_collection")
    if method != "drop_collection":
        assert texts(empty_uri) == before
    base = folder.publish(empty_uri)
    rows = range(len(folder))
    assert base.passages(rows) == folder.passages(rows)
    assert min(base.manifest.recall.values()) > 0.9
    base.close()
    assert len(collections(empty_uri)) == 2


def test_what_is_too_long_for_milvus_is_named(tmp_path: Path, empty_uri, encoder) -> None:
    row = {"id": "long", "text": "x"} | {f"column{number}": "ü" * 900 for number in range(50)}
    (tmp_path / "long.jsonl").write_text(json.dumps(row))
    base = KnowledgeBase.build([tmp_path / "long.jsonl"], tmp_path / "kb", encoder=encoder)
    with pytest.raises(KnowledgeBaseError, match="The metadata of passage long#0 is longer than the 65,535"):
        base.publish(empty_uri)


@pytest.mark.parametrize("uri", ["kb", "postgresql:///db", "milvus://host:19530", "milvus:///kb.db?table=kb"])
def test_only_uris_of_milvus_are_published_to(kb, uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"milvus\+http|ends in \?collection=NAME"):
        kb.publish(uri)


def test_uris_show_no_password() -> None:
    from ragweave.knowledge.layout import location_of

    location = location_of("milvus+https://me:geheim%21@host:19530/other?collection=kb")
    assert (location.address, location.token, location.database) == (
        "https://host:19530",
        "me:geheim!",
        "other",
    )
    assert "geheim" not in f"{location} {location!r}"
