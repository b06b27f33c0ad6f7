"""What Milvus alone does: changes without transactions, a lease, a file."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pymilvus import MilvusClient

from ragweave import KnowledgeBase
from ragweave.errors import ConfigurationError, KnowledgeBaseError, SourceError
from ragweave.knowledge import store
from ragweave.knowledge.chunking import Chunking
from ragweave.knowledge.databases.milvus import lease
from ragweave.knowledge.databases.milvus.collections import write_records

WRITES = (
    "create_collection",
    "create_index",
    "drop_collection",
    "insert",
    "upsert",
    "delete",
    "load_collection",
)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def dying(monkeypatch):
    """Lets a process die at a certain write: before it is done, and nothing is written any more."""
    state = {"left": None, "writes": 0}

    def wrapped(original):
        def write(self, *args, **options):
            if state["left"] is not None:
                state["left"] -= 1
                if state["left"] < 0:
                    raise Killed
            state["writes"] += 1
            return original(self, *args, **options)

        return write

    for name in WRITES:
        monkeypatch.setattr(MilvusClient, name, wrapped(getattr(MilvusClient, name)))

    def at(write):
        state["left"], state["writes"] = write, 0
        return state

    return at


def texts_by_document(uri):
    """What is found, by whoever comes anew."""
    base = KnowledgeBase.open(uri)
    return {
        name: {passage.text for passage in base.passages(base.row_of(name))}
        for name in ("peru.txt", "ulm.txt", "old/river.txt", "new.txt")
    }


OLD = {
    "peru.txt": "Lima is the capital of peru.",
    "ulm.txt": "Ulm is on the danube.",
    "old/river.txt": "The river is a river.",
}
NEW = {"ulm.txt": "Ulm lies in the south.", "old/river.txt": "A river of peru.", "new.txt": "A new text."}


def test_a_writer_that_dies_at_any_write_leaves_the_old_or_the_new(
    milvus, notes, tiny_encoder, monkeypatch, dying, tmp_path
):
    monkeypatch.setattr(store, "SHARD", 1)
    monkeypatch.setattr(lease, "RENEWED", 3600.0)  # its writes would be counted
    monkeypatch.setattr(lease, "GONE", 0.0)
    uri = milvus.uri()
    for write in range(100):
        for name, text in OLD.items():
            (notes / name).write_text(text)
        (notes / "new.txt").unlink(missing_ok=True)
        KnowledgeBase.build([notes], uri, encoder=tiny_encoder, overwrite=True)
        for name, text in NEW.items():
            (notes / name).write_text(text)
        dying(write)
        try:
            KnowledgeBase.open(uri).add([notes], encoder=tiny_encoder)
        except Killed:
            dying(None)
        else:
            break
        finally:
            dying(None)
        found = texts_by_document(uri)
        for name in (*OLD, "new.txt"):
            wanted = {OLD.get(name), NEW.get(name)} - {None}
            assert found[name] <= wanted
            assert found[name] or name == "new.txt"
        base = KnowledgeBase.open(uri).add([notes], encoder=tiny_encoder)
        assert {name: found for name, (found,) in texts_by_document(uri).items()} == OLD | NEW
        assert (len(base), base.manifest.documents) == (4, 4)
        client = milvus.connect()
        (collection,) = (
            name for name in client.list_collections() if name.startswith(f"{uri.rpartition('=')[2]}_")
        )
        assert client.query(collection, filter="", output_fields=["count(*)"])[0]["count(*)"] == 4
        client.close()
        assert base.add([notes], encoder=tiny_encoder) is base
    assert write > 8


@pytest.mark.slow
def test_building_anew_that_dies_at_any_write(milvus, notes, tiny_encoder, monkeypatch, dying, tmp_path):
    monkeypatch.setattr(lease, "RENEWED", 3600.0)
    monkeypatch.setattr(lease, "GONE", 0.0)
    uri = milvus.uri()
    for name, text in OLD.items():
        (notes / name).write_text(text)
    other = tmp_path / "other"
    other.mkdir()
    (other / "ulm.txt").write_text("Jena is on the saale.")
    for write in range(100):
        KnowledgeBase.build([notes], uri, encoder=tiny_encoder, overwrite=True)
        dying(write)
        try:
            KnowledgeBase.build([other], uri, encoder=tiny_encoder, overwrite=True)
        except Killed:
            dying(None)
        else:
            break
        finally:
            dying(None)
        found = {name: own for name, own in texts_by_document(uri).items() if own}
        assert found in ({name: {text} for name, text in OLD.items()}, {"ulm.txt": {"Jena is on the saale."}})
        again = KnowledgeBase.build([other], uri, encoder=tiny_encoder, overwrite=True)
        assert len(again) == 1
        client = milvus.connect()
        names = [name for name in client.list_collections() if name.startswith(uri.rpartition("=")[2])]
        client.close()
        assert len(names) == 2
    assert write > 8


def test_a_first_build_that_dies_is_no_knowledge_base(milvus, notes, tiny_encoder, monkeypatch, dying):
    monkeypatch.setattr(lease, "RENEWED", 3600.0)
    monkeypatch.setattr(lease, "GONE", 0.0)
    for write in range(100):
        uri = milvus.uri()
        dying(write)
        try:
            KnowledgeBase.build([notes], uri, encoder=tiny_encoder)
        except Killed:
            dying(None)
        else:
            break
        finally:
            dying(None)
        try:
            there = len(KnowledgeBase.open(uri))
        except KnowledgeBaseError as error:
            there = None
            assert "no knowledge base" in str(error)
        assert there in (None, 3)
        assert len(KnowledgeBase.build([notes], uri, encoder=tiny_encoder, overwrite=bool(there))) == 3
    assert write > 8


def test_a_writer_that_renews_its_lease_is_alive(milvus, notes, tiny_encoder, monkeypatch):
    base = KnowledgeBase.build([notes], milvus.uri(), encoder=tiny_encoder)
    monkeypatch.setattr(lease, "GONE", 30.0)
    with base.database.changing(), pytest.raises(KnowledgeBaseError, match=r"process \d+ on "):
        KnowledgeBase.open(base.path).delete(ids=["ulm.txt"])


def test_a_lease_that_is_not_renewed_is_taken_over(milvus, notes, tiny_encoder, monkeypatch):
    base = KnowledgeBase.build([notes], milvus.uri(), encoder=tiny_encoder)
    client = milvus.connect()
    name = str(base.path).rpartition("=")[2]
    write_records(client, name, {"writer": {"token": "x", "owner": "process 1 on nowhere", "beat": 4}})
    client.close()
    assert len(base.delete(ids=["ulm.txt"])) == 2


def test_of_two_that_begin_at_once_the_earlier_gives_up(milvus, notes, tiny_encoder, monkeypatch):
    base = KnowledgeBase.build([notes], milvus.uri(), encoder=tiny_encoder)
    name = str(base.path).rpartition("=")[2]

    def sleeping(seconds):
        client = milvus.connect()
        write_records(client, name, {"writer": {"token": "x", "owner": "process 1 on nowhere", "beat": 0}})
        client.close()

    monkeypatch.setattr(lease.time, "sleep", sleeping)
    with pytest.raises(KnowledgeBaseError, match="process 1 on nowhere"):
        base.delete(ids=["ulm.txt"])
    monkeypatch.undo()
    assert len(base.latest()) == 3


def test_a_writer_whose_place_was_taken_changes_nothing(milvus, notes, tiny_encoder, monkeypatch):
    """It was suspended while it embedded, for longer than a writer is waited for."""
    base = KnowledgeBase.build([notes], milvus.uri(), encoder=tiny_encoder)
    (notes / "new.txt").write_text("A new text.")
    encode = type(tiny_encoder).encode

    def suspended(self, given, **options):
        with monkeypatch.context() as patch:
            patch.setattr(lease, "_wait_for_the_other", lambda *_: None)
            KnowledgeBase.open(base.path).delete(ids=["ulm.txt"])
        return encode(self, given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_encoder), "encode", suspended)
        with pytest.raises(KnowledgeBaseError, match="Another process is changing"):
            base.add([notes], encoder=tiny_encoder)
    assert (len(base.latest()), base.latest().manifest.change.kind) == (2, "delete")
    assert base.row_of("ulm.txt") == []


def test_texts_that_are_too_long(milvus, tmp_path, tiny_encoder):
    (tmp_path / "long.txt").write_text(" ".join(f"äöüß{n}" for n in range(10_000)))
    with pytest.raises(KnowledgeBaseError, match=r"text of passage 'long.txt#0' .* has \d+ bytes.*--words"):
        KnowledgeBase.build([tmp_path], milvus.uri(), encoder=tiny_encoder, chunking=Chunking(words=20_000))
    assert (
        len(
            KnowledgeBase.build(
                [tmp_path], milvus.uri(), encoder=tiny_encoder, chunking=Chunking(words=5_000)
            )
        )
        == 2
    )


def test_more_than_milvus_finds(milvus, notes, tiny_encoder):
    base = KnowledgeBase.build([notes], milvus.uri(), encoder=tiny_encoder)
    with pytest.raises(ConfigurationError, match="at most 16384 passages"):
        base.search(tiny_encoder.encode(["lima"]), 16_385)


def test_a_file(tmp_path, notes, tiny_encoder):
    file = tmp_path / "kb.db"
    uri = f"milvus://{file}?collection=kb"
    with pytest.raises(KnowledgeBaseError, match="no knowledge base at"):
        KnowledgeBase.open(uri)
    assert not file.exists()
    base = KnowledgeBase.build([notes], uri, encoder=tiny_encoder)
    assert base.info()["bytes"] > 1000
    (notes / "new.txt").write_text("A new text.")
    assert len(base.add([notes], encoder=tiny_encoder)) == 4
    with base.database.changing(), pytest.raises(KnowledgeBaseError, match="being changed by this process"):
        base.delete(ids=["new.txt"])
    other = subprocess.run(
        [sys.executable, "-m", "ragweave", "info", uri], capture_output=True, text=True, check=False
    )
    assert other.returncode == 1
    assert "another process may have it open, and Milvus Lite allows one" in " ".join(other.stderr.split())
    assert "Traceback" not in other.stderr


def test_a_failed_build_leaves_no_file(tmp_path, tiny_encoder):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    with pytest.raises(SourceError, match="hold no text"):
        KnowledgeBase.build([empty], f"milvus://{tmp_path}/kb.db", encoder=tiny_encoder)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]
