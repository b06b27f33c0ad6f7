"""The life of a knowledge base: additions, deletions, compaction, other versions in force, readers that stay."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ragweave.errors import (
    ConfigurationError,
    EncoderMismatchError,
    KnowledgeBaseError,
    SourceError,
    SourceWarning,
)
from ragweave.knowledge import store
from ragweave.knowledge.base import KnowledgeBase, swap
from ragweave.knowledge.chunking_settings import Chunking
from tests.support.encoders import load_tiny_encoder, save_tiny_encoder


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    (folder / "old").mkdir(parents=True)
    (folder / "peru.txt").write_text("Lima is the capital of peru.")
    (folder / "ulm.txt").write_text("Ulm is on the danube.")
    (folder / "old" / "river.txt").write_text("The river is a river.")
    return folder


@pytest.fixture
def kb(tmp_path, notes, tiny_encoder):
    return KnowledgeBase.build([notes], tmp_path / "kb", encoder=tiny_encoder)


def texts(base):
    """What can be found, by asking for everything."""
    _, rows = base.search(np.ones((1, 16), dtype=np.float32), len(base) + 2)
    found = [row for row in rows[0].tolist() if row >= 0]
    assert len(found) == len(set(found)) == len(base)
    return sorted(base.passage(row).text for row in found)


def as_built_anew(base, notes, encoder, folder):
    """Check that a knowledge base finds what one that is built of the same sources finds, with equal scores."""
    fresh = KnowledgeBase.build([notes], folder, encoder=encoder)
    questions = encoder.encode(["the capital of peru", "a river", "ulm"])
    n = len(fresh)
    assert len(base) == n
    assert base.manifest.documents == fresh.manifest.documents
    for one in (base, fresh):
        scores, rows = one.search(questions, n)
        vectors = one.vectors_of(rows.ravel()).reshape(3, n, -1)
        np.testing.assert_allclose((questions[:, None] * vectors).sum(2), scores, atol=1e-5)
    (scores, rows), (expected, wanted) = base.search(questions, n), fresh.search(questions, n)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    for own, other in zip(rows[:, 0], wanted[:, 0], strict=True):
        assert base.passage(own).text == fresh.passage(other).text
    assert texts(base) == texts(fresh)


def test_new_changed_and_unchanged_sources(kb, notes, tiny_encoder, tmp_path):
    (notes / "ulm.txt").write_text("Ulm lies in the south.")
    (notes / "new.txt").write_text("A new text.")
    new = kb.add([notes], encoder=tiny_encoder)
    change = new.manifest.change
    assert (change.kind, change.added, change.deleted, change.unchanged) == ("add", 2, 1, 2)
    assert texts(new) == [
        "A new text.",
        "Lima is the capital of peru.",
        "The river is a river.",
        "Ulm lies in the south.",
    ]
    as_built_anew(new, notes, tiny_encoder, tmp_path / "fresh")
    new.verify()


def test_an_unchanged_source_costs_nothing(kb, notes, tiny_encoder, monkeypatch):
    monkeypatch.setattr(type(tiny_encoder), "encode", lambda *_, **__: pytest.fail("embedded again"))
    again = kb.add([notes, notes / "ulm.txt"], encoder=tiny_encoder)
    assert again.version == kb.version
    assert not (kb.path / ".work").exists()


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


def test_deleting_passages_documents_and_sources(kb, tiny_encoder, notes):
    one = kb.delete(ids=["ulm.txt#0"])
    assert (len(one), one.manifest.documents) == (2, 2)
    assert one.row_of("ulm.txt") == []
    two = one.delete(sources=[str(notes / "old")])
    assert texts(two) == ["Lima is the capital of peru."]
    with pytest.raises(KnowledgeBaseError, match=r"no passage or document 'ulm\.txt'"):
        two.delete(ids=["ulm.txt"])
    with pytest.raises(KnowledgeBaseError, match=r"Nothing in .* was read from"):
        two.delete(sources=["elsewhere"])
    with pytest.raises(ConfigurationError, match="give ids or sources"):
        two.delete()
    three = two.delete(sources=["*/notes/*.txt"])
    assert (len(three), texts(three), three.manifest.documents) == (0, [], 0)
    scores, rows = three.search(tiny_encoder.encode(["lima"]), 2)
    assert rows.tolist() == [[-1, -1]]
    assert np.isneginf(scores).all()


def test_what_was_deleted_by_id_stays_away_until_its_source_changes(kb, notes, tiny_encoder):
    base = kb.delete(ids=["ulm.txt"]).add([notes], encoder=tiny_encoder)
    assert base.row_of("ulm.txt") == []
    (notes / "ulm.txt").write_text("Ulm again.")
    base = base.add([notes], encoder=tiny_encoder)
    assert len(base.row_of("ulm.txt")) == 1


def test_what_was_deleted_by_source_can_be_added_again(kb, notes, tiny_encoder, tmp_path):
    base = kb.delete(sources=[str(notes / "ulm.txt")]).add([notes], encoder=tiny_encoder)
    as_built_anew(base, notes, tiny_encoder, tmp_path / "fresh")


def test_more_deleted_than_asked_for(tmp_path, tiny_encoder):
    """What is found first is deleted, and the search has to go on behind it."""
    lines = "".join(f'{{"id": "{n}", "text": "river {n} of peru"}}\n' for n in range(60))
    (tmp_path / "rivers.jsonl").write_text(lines)
    for kind in ("flat", "hnsw", "sq8"):
        base = KnowledgeBase.build(
            [tmp_path / "rivers.jsonl"], tmp_path / kind, encoder=tiny_encoder, index=kind
        )
        question = tiny_encoder.encode(["river 7"])
        everything = base.search(question, 60)[1][0]
        gone = [base.passage(row).document_id for row in everything[:40]]
        left = base.delete(ids=gone)
        assert left.search(question, 5)[1][0].tolist() == everything[40:45].tolist()
        assert (left.search(question, 30)[1][0] >= 0).sum() == 20


def test_compaction_changes_no_answer(kb, notes, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 2)
    (notes / "ulm.txt").write_text("Ulm lies in the south.")
    (notes / "new.txt").write_text("A new text.")
    many = kb.add([notes], encoder=tiny_encoder).delete(ids=["old/river.txt"])
    (notes / "old" / "river.txt").unlink()
    monkeypatch.setattr(type(tiny_encoder), "encode", lambda *_, **__: pytest.fail("embedded again"))
    one = many.compact(keep=1)
    monkeypatch.undo()
    assert (len(many.manifest.segments), len(one.manifest.segments)) == (2, 1)
    as_built_anew(one, notes, tiny_encoder, tmp_path / "fresh")
    assert one.version_names() == [many.version, one.version]
    assert one.compact().version == one.version
    assert one.add([notes], encoder=tiny_encoder).version == one.version


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


def test_duplicates_are_left_out_and_counted(tmp_path, tiny_encoder):
    (tmp_path / "a.jsonl").write_text('{"title": "t", "text": "Lima."}\n{"title": "t", "text": "Lima."}\n')
    (tmp_path / "b.jsonl").write_text('{"title": "other", "text": "Lima."}\n')
    base = KnowledgeBase.build(
        [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "kb", encoder=tiny_encoder
    )
    assert (len(base), base.manifest.change.duplicates) == (2, 1)
    (tmp_path / "c.jsonl").write_text('{"title": "t", "text": "Lima."}\n{"title": "t", "text": "Ulm."}\n')
    base = base.add([tmp_path / "c.jsonl"], encoder=tiny_encoder)
    assert (len(base), base.manifest.change.duplicates, base.manifest.change.added) == (3, 1, 1)


def test_a_source_that_cannot_be_read_is_skipped_and_reported(kb, notes, tiny_encoder, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 1)
    (notes / "new.txt").write_text("A new text.")
    (notes / "peru.txt").write_bytes(b"\xff")
    (notes / "bad.jsonl").write_text('{"text": "good"}\nbad\n')
    with pytest.raises(SourceError, match=r"bad\.jsonl|peru"):
        kb.add([notes], encoder=tiny_encoder, strict=True)
    base = kb.add([notes], encoder=tiny_encoder)
    assert len(base.manifest.change.skipped) == 2
    # What was written of a source before it failed does not count; the old passages of one stay.
    assert texts(base) == [
        "A new text.",
        "Lima is the capital of peru.",
        "The river is a river.",
        "Ulm is on the danube.",
    ]
    with pytest.warns(SourceWarning, match="peru"):
        assert base.add([notes], encoder=tiny_encoder).version == base.version
    with pytest.raises(SourceError, match="peru"):
        base.add([notes / "peru.txt"], encoder=tiny_encoder)


def test_an_id_that_another_source_has(kb, tmp_path, tiny_encoder):
    (tmp_path / "ulm.txt").write_text("Another text about ulm.")
    with pytest.raises(SourceError, match=r"'ulm.txt' is in the knowledge base already, from .*notes"):
        kb.add([tmp_path / "ulm.txt"], encoder=tiny_encoder)
    assert KnowledgeBase.open(kb.path).version == kb.version
    assert not (kb.path / ".work").exists()


def test_another_encoder_is_refused(kb, notes, tmp_path):
    other = load_tiny_encoder(save_tiny_encoder(tmp_path / "other", seed=1))
    with pytest.raises(EncoderMismatchError):
        kb.add([notes], encoder=other)


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


def test_a_file_that_changes_while_it_is_read(kb, notes, tiny_encoder, monkeypatch):
    from ragweave.knowledge.ingest.loaders import loader

    original = loader.LOADERS[".txt"]

    def reading(file):
        yield from original(file)
        with Path(file.path).open("a") as content:
            content.write(" more")

    monkeypatch.setitem(loader.LOADERS, ".txt", reading)
    (notes / "new.txt").write_text("A new text.")
    with pytest.warns(SourceWarning, match=r"new\.txt changed while it was read"):
        assert kb.add([notes], encoder=tiny_encoder).version == kb.version


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


def test_where_passages_come_from(tmp_path, tiny_encoder):
    text = "# Title\n\nOne is here.\nTwo is\n  there. Three is far away.\n\fFour is on page two."
    (tmp_path / "a.md").write_text(text)
    base = KnowledgeBase.build(
        [tmp_path / "a.md"], tmp_path / "kb", encoder=tiny_encoder, chunking=Chunking(words=3)
    )
    passages = base.passages(range(len(base)))
    assert len(passages) >= 4
    for passage in passages:
        assert text[passage.start : passage.end].split() == passage.text.split()
        assert passage.line == text[: passage.start].count("\n") + 1
        assert passage.page == text[: passage.start].count("\f") + 1
