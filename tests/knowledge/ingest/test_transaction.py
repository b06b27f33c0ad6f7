"""A build that fails at any step leaves what was there before, and nothing else."""

import errno
import os
import signal
from pathlib import Path

import pytest

from ragweave.errors import KnowledgeBaseError, SourceError
from ragweave.knowledge import layout, store
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest import builder
from ragweave.knowledge.manifest import FileRecord, Manifest
from ragweave.knowledge.vector_index import write_index
from tests.support.processes import command
from tests.support.waiting import wait_until

# Every step that writes, by the object that it is looked up in.
STEPS = [
    (store, "write_passages"),
    (store, "write_vectors"),
    (store, "write_array"),
    (builder, "write_index"),
    (store, "write_text"),
    (store, "sync_folder"),
    (FileRecord, "of"),
    (Manifest, "to_json"),
    (layout.Layout, "write_current"),
    (Path, "rename"),
]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def refuse(error):
    def fail(*args, **options):
        raise error

    return fail


@pytest.mark.parametrize(("owner", "name"), STEPS, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_failure_at_every_step(tmp_path, sources, tiny_encoder, monkeypatch, owner, name, overwrite, error):
    output = tmp_path / "kb"
    if overwrite:
        KnowledgeBase.build([sources], output, encoder=tiny_encoder)
    before = snapshot(tmp_path)
    monkeypatch.setattr(owner, name, refuse(error))
    with pytest.raises(type(error)):
        KnowledgeBase.build([sources], output, encoder=tiny_encoder, overwrite=overwrite)
    monkeypatch.undo()
    assert snapshot(tmp_path) == before


def test_failure_after_a_version_was_moved_but_before_it_is_current(
    tmp_path, sources, tiny_encoder, monkeypatch
):
    output = tmp_path / "kb"
    KnowledgeBase.build([sources], output, encoder=tiny_encoder)
    before = snapshot(tmp_path)
    sync = store.sync_folder
    fail = refuse(RuntimeError("power cut"))
    monkeypatch.setattr(store, "sync_folder", lambda path: fail() if path.name == "versions" else sync(path))
    with pytest.raises(RuntimeError, match="power cut"):
        KnowledgeBase.build([sources], output, encoder=tiny_encoder, overwrite=True)
    assert snapshot(tmp_path) == before


def test_failure_after_a_version_is_current_leaves_it_complete(tmp_path, sources, tiny_encoder, monkeypatch):
    output = tmp_path / "kb"
    KnowledgeBase.build([sources], output, encoder=tiny_encoder)
    sync, stop = store.sync_folder, refuse(KeyboardInterrupt())
    monkeypatch.setattr(store, "sync_folder", lambda path: stop() if path == output else sync(path))
    with pytest.raises(KeyboardInterrupt):
        KnowledgeBase.build([sources], output, encoder=tiny_encoder, overwrite=True)
    base = KnowledgeBase.open(output)
    base.verify()
    assert base.version == "000002"


def test_failure_while_embedding(tmp_path, sources, tiny_encoder, monkeypatch):
    class Stop:
        def start(self, stage, total):
            self.stage = stage

        def advance(self, steps):
            if self.stage == "Embedding":
                raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        KnowledgeBase.build([sources], tmp_path / "a" / "b" / "kb", encoder=tiny_encoder, progress=Stop())
    assert list(tmp_path.iterdir()) == []


def test_failure_while_reading(tmp_path, tiny_encoder):
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    with pytest.raises(SourceError, match=r"b\.txt"):
        KnowledgeBase.build([tmp_path], tmp_path / "kb", encoder=tiny_encoder, strict=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


class FullDisk:
    """A file on a disk that has room for so many bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        self.room -= memoryview(data).nbytes
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)


@pytest.mark.parametrize(
    "name", ["passages.arrow", "vectors.npy", "hashes.npy", "index.faiss", "deleted.npy", "manifest.json"]
)
@pytest.mark.parametrize("room", [0, 100])
def test_full_disk(tmp_path, sources, tiny_encoder, monkeypatch, name, room):
    opened = Path.open

    def open_full(self, *args, **options):
        file = opened(self, *args, **options)
        return FullDisk(file, room) if self.name == name and "x" in args[0] else file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(KnowledgeBaseError, match=r"No space left on device.*free some space"):
        KnowledgeBase.build([sources], tmp_path / "kb", encoder=tiny_encoder, index="hnsw")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_index_that_does_not_fit_is_noticed_however_small(monkeypatch):
    import numpy as np

    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: opened(self, "wb"))
    with pytest.raises(OSError, match="No space"):
        write_index(Path("/dev/full"), np.ones((1, 4), dtype=np.float32), "HNSW8", {})


def test_interrupt_in_a_process_leaves_nothing(tmp_path, tiny_encoder_path):
    (tmp_path / "long.txt").write_text("".join(f"Lima {n} is the capital of peru. " for n in range(300_000)))
    work = tmp_path / "work"
    work.mkdir()

    def building():
        return any(path.is_file() for path in work.glob(".kb.building/.work/segment/*"))

    arguments = ("index", tmp_path / "long.txt", "--output", work / "kb", "--model", tiny_encoder_path)
    with command(*arguments, "--words", 10, folder=tmp_path) as process:
        wait_until(lambda: building() or not process.is_running)
        assert process.is_running, process.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait() == 1
        assert process.stderr == "Interrupted; nothing half-written was left behind.\n"
    assert not list(work.iterdir())


def test_existing_knowledge_base_is_kept_without_overwrite(tmp_path, sources, tiny_encoder):
    output = tmp_path / "kb"
    KnowledgeBase.build([sources], output, encoder=tiny_encoder)
    before = snapshot(tmp_path)
    with pytest.raises(KnowledgeBaseError, match="--overwrite"):
        KnowledgeBase.build([sources], output, encoder=tiny_encoder)
    assert snapshot(tmp_path) == before


def test_overwrite_adds_a_version_and_readers_keep_theirs(tmp_path, sources, tiny_encoder):
    output = tmp_path / "kb"
    old = KnowledgeBase.build([sources], output, encoder=tiny_encoder)
    (tmp_path / "new.txt").write_text("A new text.")
    new = KnowledgeBase.build([tmp_path / "new.txt"], output, encoder=tiny_encoder, overwrite=True)
    assert (old.version, new.version, len(new)) == ("000001", "000002", 1)
    assert KnowledgeBase.open(output).version == "000002"
    assert old.passage(0).document_id == "peru.md"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kb", "new.txt"]


def test_overwrite_where_there_is_nothing_yet(tmp_path, sources, tiny_encoder):
    base = KnowledgeBase.build([sources], tmp_path / "kb", encoder=tiny_encoder, overwrite=True)
    assert base.version == "000001"


def test_overwrite_repairs_a_damaged_knowledge_base(tmp_path, sources, tiny_encoder):
    output = tmp_path / "kb"
    KnowledgeBase.build([sources], output, encoder=tiny_encoder)
    (output / "CURRENT").write_text("garbage")
    assert KnowledgeBase.build([sources], output, encoder=tiny_encoder, overwrite=True).version == "000002"


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_files_and_folders_are_never_replaced(tmp_path, sources, tiny_encoder, overwrite):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = snapshot(tmp_path)
    for name in ("file", "folder", "link"):
        with pytest.raises(KnowledgeBaseError, match="choose another output"):
            KnowledgeBase.build([sources], tmp_path / name, encoder=tiny_encoder, overwrite=overwrite)
    assert snapshot(tmp_path) == before


def test_empty_folder_and_missing_parents(tmp_path, sources, tiny_encoder):
    (tmp_path / "empty").mkdir()
    for output in (tmp_path / "empty", tmp_path / "a" / "b" / "kb"):
        KnowledgeBase.build([sources], output, encoder=tiny_encoder)
        assert len(KnowledgeBase.open(output)) > 0


def test_output_inside_of_the_sources(tmp_path, tiny_encoder):
    (tmp_path / "a.txt").write_text("Lima is a city.")
    for _ in range(2):
        base = KnowledgeBase.build([tmp_path], tmp_path / "kb", encoder=tiny_encoder, overwrite=True)
        assert len(base) == 1
