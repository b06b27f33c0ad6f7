"""What only a folder has: versions, compaction into one segment, a lock file, and changes that can be resumed."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from ragweave.errors import ConfigurationError, KnowledgeBaseError, SourceError
from ragweave.knowledge import store
from ragweave.knowledge.base import KnowledgeBase, swap
from tests.knowledge.test_life import assert_like_a_new_build, texts


@pytest.fixture
def kb(tmp_path, notes, tiny_encoder):
    return KnowledgeBase.build([notes], tmp_path / "kb", encoder=tiny_encoder)


def test_a_reader_keeps_its_version_until_it_asks_for_the_next(kb, notes, tiny_encoder):
    before = texts(kb)
    shutil.rmtree(notes)
    notes.mkdir()
    (notes / "ulm.txt").write_text("Ulm lies in the south.")
    new = kb.add([notes], encoder=tiny_encoder)
    assert texts(kb) == before
    new = new.compact(keep=0)
    assert sorted(path.name for path in (kb.path / "versions").iterdir()) == [new.version]
    assert len(list((kb.path / "segments").iterdir())) == 1
    assert texts(kb) == before  # though its files are gone
    assert texts(kb.latest()) == texts(new) != before
    assert new.latest() is new


def test_compaction_changes_no_answer(kb, notes, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 2)
    (notes / "new.txt").write_text("A new text.")
    many = kb.add([notes], encoder=tiny_encoder).delete(ids=["old/river.txt"])
    (notes / "old" / "river.txt").unlink()
    monkeypatch.setattr(type(tiny_encoder), "encode", lambda *_, **__: pytest.fail("embedded again"))
    one = many.compact(keep=1)
    monkeypatch.undo()
    assert (len(many.manifest.segments), len(one.manifest.segments)) == (2, 1)
    assert_like_a_new_build(one, notes, tiny_encoder, tmp_path / "fresh")
    assert one.version_names() == [many.version, one.version]
    assert one.compact().version == one.version
    assert one.add([notes], encoder=tiny_encoder).version == one.version


def test_old_versions_are_deleted_with_the_segments_that_only_they_use(kb, tiny_encoder, notes):
    for number in range(4):
        (notes / "new.txt").write_text(f"Text number {number}.")
        base = kb.add([notes], encoder=tiny_encoder)
    before = texts(base)
    base.prune(keep=4)
    assert len(base.version_names()) == 5
    base.prune(keep=1)
    assert base.version_names() == ["000004", "000005"]
    used = {segment.name for manifest in base.versions() for segment in manifest.segments}
    assert {path.name for path in (base.path / "segments").iterdir()} == used
    assert texts(KnowledgeBase.open(base.path)) == before
    base.verify()
    back = base.swap("000004")
    back.prune(keep=0)
    assert back.version_names() == ["000004"]
    with pytest.raises(ConfigurationError, match="keep is -1"):
        back.prune(keep=-1)


def test_compacting_nothing(kb, notes):
    empty = kb.delete(sources=[str(notes)]).compact(keep=0)
    assert (len(empty), empty.manifest.segments) == (0, ())


def test_versions_and_putting_them_in_force(kb, notes, tiny_encoder):
    first = texts(kb)
    (notes / "new.txt").write_text("A new text.")
    new = kb.add([notes], encoder=tiny_encoder)
    assert [manifest.change.kind for manifest in new.versions()] == ["build", "add"]
    assert texts(KnowledgeBase.open(kb.path, version="000001")) == first
    back = new.swap("000001")
    assert (back.version, texts(back)) == ("000001", first)
    (notes / "other.txt").write_text("Another text.")
    assert back.add([notes], encoder=tiny_encoder).version == "000003"
    assert swap(kb.path, "000002").version == "000002"
    with pytest.raises(KnowledgeBaseError, match="there are 000001, 000002, 000003"):
        new.swap("000004")
    with pytest.raises(KnowledgeBaseError, match="no version"):
        KnowledgeBase.open(kb.path, version="../000001")


def test_a_damaged_version_is_not_put_in_force(kb, notes, tiny_encoder):
    new = kb.delete(ids=["ulm.txt"])
    (kb.path / "versions" / "000001" / "deleted.npy").write_bytes(b"")
    with pytest.raises(KnowledgeBaseError, match="damaged"):
        new.swap("000001")
    assert KnowledgeBase.open(kb.path).version == new.version


def test_a_damaged_pointer_is_mended_by_swapping(kb):
    (kb.path / "CURRENT").write_text("garbage")
    assert swap(kb.path, "000001").version == "000001"
    with pytest.raises(KnowledgeBaseError, match="not a knowledge base"):
        swap(kb.path / "versions", "000001")


def test_the_pointer_of_another_version_is_refused(kb):
    kb.delete(ids=["ulm.txt"])
    pointer = kb.path / "CURRENT"
    pointer.write_text(pointer.read_text().replace("000002", "000001"))
    with pytest.raises(KnowledgeBaseError, match="does not belong to version 000001"):
        KnowledgeBase.open(kb.path)


def test_one_writer_at_a_time_and_it_is_named(kb):
    code = (
        "import sys, pathlib\n"
        "from ragweave.knowledge.ingest.transaction import transaction\n"
        "with transaction(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(kb.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(
            KnowledgeBaseError, match=f"Another process .*process {process.pid} on .*, since 2"
        ):
            kb.delete(ids=["ulm.txt"])
        process.kill()
    assert len(kb.delete(ids=["ulm.txt"])) == 2  # the lock went with the process


class Stop:
    """Interrupts the embedding after so many passages."""

    def __init__(self, after):
        self.left, self.embedding = after, False

    def start(self, stage, total):
        self.embedding = stage == "Embedding"

    def advance(self, steps):
        if self.embedding:
            self.left -= steps
            if self.left < 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["build", "overwrite", "add"])
def test_an_interrupted_embedding_goes_on_where_it_stopped(tmp_path, tiny_encoder, monkeypatch, where):
    monkeypatch.setattr(store, "SHARD", 4)
    (tmp_path / "old.txt").write_text("Something old.")
    source, output = tmp_path / "rivers.jsonl", tmp_path / "kb"
    source.write_text("".join(f'{{"id": "{n}", "text": "river {n} of peru"}}\n' for n in range(20)))
    if where != "build":
        KnowledgeBase.build([tmp_path / "old.txt"], output, encoder=tiny_encoder)

    def write(**options):
        if where == "add":
            return KnowledgeBase.open(output).add([source], encoder=tiny_encoder, **options)
        return KnowledgeBase.build([source], output, encoder=tiny_encoder, overwrite=True, **options)

    with pytest.raises(KeyboardInterrupt) as interrupt:
        write(progress=Stop(10))
    assert "--resume" in interrupt.value.__notes__[0]
    embedded = []
    encode = type(tiny_encoder).encode
    monkeypatch.setattr(
        type(tiny_encoder),
        "encode",
        lambda self, texts, **options: embedded.extend(texts) or encode(self, texts, **options),
    )
    with pytest.raises(KnowledgeBaseError, match="without --resume"):
        changed = source.read_text()
        source.write_text(changed + '{"id": "more", "text": "more"}\n')
        try:
            write(resume=True)
        finally:
            source.write_text(changed)
    base = write(resume=True)
    assert 0 < len(embedded) <= 12  # two shards of four were on the disk
    base.verify()
    rows = [base.row_of(str(n))[0] for n in range(20)]
    expected = encode(tiny_encoder, [f"river {n} of peru" for n in range(20)], titles=[""] * 20)
    np.testing.assert_allclose(base.vectors_of(rows), expected, atol=1e-6)
    assert not list(tmp_path.glob(".kb*"))
    assert not (output / ".work").exists()


def test_a_build_that_was_killed_in_its_first_shard_goes_on(tmp_path, tiny_encoder, monkeypatch):
    (tmp_path / "a.txt").write_text("Lima is in Peru.")
    with monkeypatch.context() as patch:  # nothing is tidied up by a process that is killed
        patch.setattr("ragweave.knowledge.ingest.transaction.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            KnowledgeBase.build([tmp_path / "a.txt"], tmp_path / "kb", encoder=tiny_encoder, progress=Stop(0))
    assert (tmp_path / ".kb.building" / ".work" / "segment" / "vectors.npy").exists()
    base = KnowledgeBase.build([tmp_path / "a.txt"], tmp_path / "kb", encoder=tiny_encoder, resume=True)
    base.verify()
    assert len(base) == 1


def test_an_interrupted_build_may_begin_anew(tmp_path, tiny_encoder, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 4)
    source, output = tmp_path / "rivers.jsonl", tmp_path / "kb"
    source.write_text("".join(f'{{"id": "{n}", "text": "river {n} of peru"}}\n' for n in range(20)))
    with pytest.raises(KeyboardInterrupt):
        KnowledgeBase.build([source], output, encoder=tiny_encoder, progress=Stop(10))
    assert len(KnowledgeBase.build([source], output, encoder=tiny_encoder)) == 20
    assert not list(tmp_path.glob(".kb*"))


def test_resuming_what_was_never_begun(tmp_path, notes, tiny_encoder):
    assert len(KnowledgeBase.build([notes], tmp_path / "kb", encoder=tiny_encoder, resume=True)) == 3


def test_a_failed_change_leaves_no_staged_files(kb, notes, tmp_path, tiny_encoder):
    (tmp_path / "ulm.txt").write_text("Another text about ulm.")
    with pytest.raises(SourceError, match="already"):
        kb.add([tmp_path / "ulm.txt"], encoder=tiny_encoder)
    assert kb.add([notes], encoder=tiny_encoder) is kb
    assert not (kb.path / ".work").exists()
