"""The life of a knowledge base, in a folder and in PostgreSQL: additions, deletions, failures, readers that stay."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
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
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.builder import LocalEngine
from ragweave.knowledge.ingest_settings import Chunking
from ragweave.knowledge.storage import check_output
from tests.support.databases import PASSWORD
from tests.support.encoders import load_tiny_encoder, save_tiny_encoder


@pytest.fixture(params=["folder", "postgresql"])
def output(request, tmp_path):
    """Where a knowledge base can be built: a folder, or tables of a database."""
    if request.param == "folder":
        return tmp_path / "kb"
    return request.getfixturevalue("postgres").uri()


@pytest.fixture
def kb(output, notes, tiny_encoder):
    return KnowledgeBase.build([notes], output, encoder=tiny_encoder)


def texts(base):
    """All texts, by a search for everything."""
    _, rows = base.search(np.ones((1, 16), dtype=np.float32), len(base) + 2)
    hits = [row for row in rows[0].tolist() if row >= 0]
    assert len(hits) == len(set(hits)) == len(base)
    return sorted(base.passage(row).text for row in hits)


def assert_like_a_new_build(base, notes, encoder, folder):
    """Check that a knowledge base finds what one finds that is built in a folder from the same sources."""
    fresh = KnowledgeBase.build([notes], folder, encoder=encoder)
    questions = encoder.encode(["the capital of peru", "a river", "ulm"])
    n = len(fresh)
    assert (len(base), base.manifest.documents) == (n, fresh.manifest.documents)
    for one in (base, fresh):
        scores, rows = one.search(questions, n)
        vectors = one.vectors_of(rows.ravel()).reshape(3, n, -1)
        np.testing.assert_allclose((questions[:, None] * vectors).sum(2), scores, atol=1e-5)
    (scores, rows), (expected, expected_rows) = base.search(questions, n), fresh.search(questions, n)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    for row, expected_row in zip(rows[:, 0], expected_rows[:, 0], strict=True):
        assert base.passage(row) == fresh.passage(expected_row)
    assert texts(base) == texts(fresh)


def test_opened_again(kb, output, notes, tiny_encoder, tmp_path):
    again = KnowledgeBase.open(output, encoder=tiny_encoder)
    for base in (kb, again):
        assert_like_a_new_build(base, notes, tiny_encoder, tmp_path / f"fresh-{base is kb}")
    assert again.latest() is again
    assert again.row_of("old/river.txt") == again.row_of("old/river.txt#0") != []
    assert again.row_of("nothing") == []
    with pytest.raises(IndexError, match="no passage 7"):
        again.passage(7)
    again.close()
    assert len(texts(again)) == 3


def test_info(kb, notes, tiny_encoder, tmp_path):
    info, folder = (
        kb.info(),
        KnowledgeBase.build([notes], tmp_path / "fresh", encoder=tiny_encoder).info(),
    )
    assert info.keys() == folder.keys()
    for name in (
        "documents",
        "passages",
        "fingerprint",
        "dimension",
        "index",
        "factory",
        "language",
        "recall",
    ):
        assert info[name] == folder[name]
    assert info["factory"] == "Flat"
    assert info["bytes"] > 0
    assert PASSWORD not in str(info)


def test_the_index_of_the_retriever(kb, tiny_encoder):
    index = kb.as_index()
    rows, vectors = index.get_top_docs(tiny_encoder.encode(["lima", "ulm"]), 5)
    assert (rows.shape, rows.dtype, vectors.shape) == ((2, 5), np.int64, (2, 5, 16))
    assert (rows[:, 3:] == -1).all()
    assert not vectors[:, 3:].any()
    docs = index.get_doc_dicts(rows)
    assert docs[0]["text"][3:] == ["", ""]
    assert {doc["id"][0] for doc in docs} <= {"peru.txt#0", "ulm.txt#0", "old/river.txt#0"}


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
    assert_like_a_new_build(new, notes, tiny_encoder, tmp_path / "fresh")
    assert new.version > kb.version
    assert kb.latest().version == new.version


def test_an_unchanged_source_costs_nothing(kb, notes, tiny_encoder, monkeypatch):
    monkeypatch.setattr(type(tiny_encoder), "encode", lambda *_, **__: pytest.fail("embedded again"))
    assert kb.add([notes, notes / "ulm.txt"], encoder=tiny_encoder) is kb


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
    three = two.delete(sources=["**/notes/*.txt"])
    assert (len(three), texts(three), three.manifest.documents) == (0, [], 0)
    scores, rows = three.search(tiny_encoder.encode(["lima"]), 2)
    assert rows.tolist() == [[-1, -1]]
    assert np.isneginf(scores).all()


@pytest.mark.parametrize(
    "written",
    ["notes/peru.txt", "./notes//peru.txt", "notes/../notes/peru.txt", "notes/*.txt", "{}/notes/peru.txt"],
)
@pytest.mark.parametrize("indexed", ["notes", "../deep/notes", "{}/notes"])
def test_a_source_is_deleted_however_its_path_is_written(
    tmp_path, tiny_encoder, monkeypatch, written, indexed
):
    folder = tmp_path / "deep"
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "peru.txt").write_text("Lima is the capital.")
    (folder / "ulm.txt").write_text("Ulm lies in the south.")
    monkeypatch.chdir(folder)
    base = KnowledgeBase.build(
        [indexed.format(folder), "ulm.txt"], tmp_path / "kb", encoder=tiny_encoder, language=None
    )
    assert list(base.delete(sources=[written.format(folder)]).sources()) == ["ulm.txt"]


def test_a_knowledge_base_in_a_folder_is_not_one_of_its_documents(tmp_path, tiny_encoder):
    (tmp_path / "peru.txt").write_text("Lima is the capital.")
    base = KnowledgeBase.build([tmp_path], tmp_path / "kb", encoder=tiny_encoder, language=None)
    (tmp_path / "ulm.txt").write_text("Ulm lies in the south.")
    base = base.add([tmp_path], encoder=tiny_encoder)
    assert list(base.sources()) == [str(tmp_path / "peru.txt"), str(tmp_path / "ulm.txt")]
    assert base.manifest.change.ignored == {str(tmp_path / "kb"): "knowledge base"}


@pytest.mark.parametrize("written", ["report[1].txt", "{}/report[1].txt", "{}/report[[]1].txt"])
def test_a_source_whose_name_is_also_a_pattern(tmp_path, tiny_encoder, monkeypatch, written):
    for name in ("report[1].txt", "report1.txt"):
        (tmp_path / name).write_text(f"Text of {name}.")
    monkeypatch.chdir(tmp_path)
    base = KnowledgeBase.build(
        ["report[1].txt", "report1.txt"], tmp_path / "kb", encoder=tiny_encoder, language=None
    )
    assert list(base.delete(sources=[written.format(tmp_path)]).sources()) == ["report1.txt"]


@pytest.mark.parametrize(
    ("pattern", "remaining"),
    [
        ("notes/*.txt", ["notes/old/a.txt"]),
        ("{}/notes/*.txt", ["notes/old/a.txt"]),
        ("notes/o*", ["notes/a.txt"]),
        ("notes/**/*.txt", []),
        ("**/a.txt", []),
        ("**", []),
    ],
)
def test_a_pattern_deletes_what_it_would_read(tmp_path, tiny_encoder, monkeypatch, pattern, remaining):
    (tmp_path / "notes" / "old").mkdir(parents=True)
    for name in ("a.txt", "old/a.txt"):
        (tmp_path / "notes" / name).write_text(f"Text of {name}.")
    monkeypatch.chdir(tmp_path)
    base = KnowledgeBase.build(["notes"], tmp_path / "kb", encoder=tiny_encoder, language=None)
    assert list(base.delete(sources=[pattern.format(tmp_path)]).sources()) == remaining


def test_a_source_is_deleted_from_another_folder(tmp_path, tiny_encoder, monkeypatch):
    (tmp_path / "notes").mkdir()
    for name in ("peru.txt", "ulm.txt"):
        (tmp_path / "notes" / name).write_text(f"Text of {name}.")
    monkeypatch.chdir(tmp_path)
    base = KnowledgeBase.build(["notes"], tmp_path / "kb", encoder=tiny_encoder, language=None)
    monkeypatch.chdir(tmp_path / "notes")
    assert list(base.delete(sources=["peru.txt"]).sources()) == ["notes/ulm.txt"]


def test_a_document_goes_with_the_last_of_its_passages(output, tmp_path, tiny_encoder):
    text = " ".join(f"The river {n} is in peru." for n in range(12))
    (tmp_path / "long.txt").write_text(text)
    base = KnowledgeBase.build(
        [tmp_path / "long.txt"], output, encoder=tiny_encoder, chunking=Chunking(words=20)
    )
    assert len(base) == 4
    base = base.delete(ids=["long.txt#0", "long.txt#2"])
    assert (len(base), base.manifest.documents) == (2, 1)
    base = base.delete(ids=["long.txt#1", "long.txt#3"])
    assert (len(base), base.manifest.documents) == (0, 0)


def test_what_was_deleted_by_id_stays_away_until_its_source_changes(kb, notes, tiny_encoder):
    base = kb.delete(ids=["ulm.txt"]).add([notes], encoder=tiny_encoder)
    assert base.row_of("ulm.txt") == []
    (notes / "ulm.txt").write_text("Ulm again.")
    assert len(base.add([notes], encoder=tiny_encoder).row_of("ulm.txt")) == 1


def test_sources_are_listed_with_their_passages(kb, notes, tiny_encoder):
    (notes / "copy.txt").write_text("Zurich lies on a lake.")
    (notes / "zurich.txt").write_text("Zurich lies on a lake.")
    (notes / "photo.png").write_bytes(b"")
    before = kb.sources()
    base = kb.add([notes], encoder=tiny_encoder)
    sources = {Path(name).name: count for name, count in base.sources().items()}
    assert sum(sources.values()) == len(base)
    assert sources.keys() == {Path(name).name for name in before} | {"copy.txt", "zurich.txt"}
    assert base.manifest.change.read == 2
    assert base.manifest.change.ignored == {str(notes / "photo.png"): ".png"}
    assert kb.latest().manifest == base.manifest
    remaining = base.delete(sources=[str(notes / "zurich.txt")]).sources()
    assert remaining.keys() == base.sources().keys() - {str(notes / "zurich.txt")}


def test_what_was_deleted_by_source_can_be_added_again(kb, notes, tiny_encoder, tmp_path):
    base = kb.delete(sources=[str(notes / "ulm.txt")]).add([notes], encoder=tiny_encoder)
    assert_like_a_new_build(base, notes, tiny_encoder, tmp_path / "fresh")


def test_duplicates_are_left_out_and_counted(output, tmp_path, tiny_encoder):
    (tmp_path / "a.jsonl").write_text('{"title": "t", "text": "Lima."}\n{"title": "t", "text": "Lima."}\n')
    (tmp_path / "b.jsonl").write_text('{"title": "other", "text": "Lima."}\n')
    base = KnowledgeBase.build([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], output, encoder=tiny_encoder)
    assert (len(base), base.manifest.change.duplicates) == (2, 1)
    (tmp_path / "c.jsonl").write_text('{"title": "t", "text": "Lima."}\n{"title": "t", "text": "Ulm."}\n')
    base = base.add([tmp_path / "c.jsonl"], encoder=tiny_encoder)
    assert (len(base), base.manifest.change.duplicates, base.manifest.change.added) == (3, 1, 1)
    # What a source held before it changed is not a duplicate of what it holds now.
    (tmp_path / "c.jsonl").write_text('{"title": "t", "text": "Ulm."}\n{"title": "t", "text": "Jena."}\n')
    base = base.add([tmp_path / "c.jsonl"], encoder=tiny_encoder)
    assert (len(base), base.manifest.change.duplicates, base.manifest.change.added) == (4, 0, 2)


def test_a_passage_stays_with_another_source(output, tmp_path, tiny_encoder):
    a, b = tmp_path / "a.md", tmp_path / "b.md"
    for path in (a, b):
        path.write_text("# Peru\n\nLima is the capital.")
        path.with_suffix(".txt").write_text(f"Only in {path.stem}.")
    base = KnowledgeBase.build([tmp_path / "a.txt", a], output, encoder=tiny_encoder)
    base = base.add([b, tmp_path / "b.txt"], encoder=tiny_encoder)
    (row,) = base.row_of("a.md")
    assert base.row_of("b.md") == base.row_of("b.md#0") == [row]
    assert base.sources_of(row) == [str(a), str(b)]
    assert base.sources() == {str(path): 1 for path in sorted(tmp_path.glob("?.*"))}
    assert texts(base) == ["# Peru\nLima is the capital.", "Only in a.", "Only in b."]

    base = base.delete(sources=[str(a)])
    change = base.manifest.change
    assert (len(base), change.deleted, change.kept) == (3, 0, 1)
    assert base.passage(row).source == str(b)
    assert base.passage(row).document_id == "b.md"
    assert (base.row_of("a.md"), base.sources_of(row)) == ([], [str(b)])
    # The ids of a copy are taken, as those of any other document are.
    base = base.add([a], encoder=tiny_encoder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.md").write_text("Another text.")
    with pytest.raises(SourceError, match=r"'a.md' is in the knowledge base already"):
        base.add([tmp_path / "other" / "a.md"], encoder=tiny_encoder)
    base = base.delete(ids=["b.md#0"]).delete(ids=["a.md"])
    assert texts(base) == ["Only in a.", "Only in b."]


def test_what_a_changed_source_still_holds_is_not_embedded_again(output, tmp_path, tiny_encoder):
    class Recording(LocalEngine):
        def embed(self, shards, encoder, progress):
            def recorded():
                for shard in shards:
                    embedded.extend(passage.text for passage in shard)
                    yield shard

            return super().embed(recorded(), encoder, progress)

    embedded = []
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "Lima."}\n{"text": "Ulm."}\n')
    base = KnowledgeBase.build([source], output, encoder=tiny_encoder, engine=Recording())
    source.write_text('{"text": "Jena."}\n{"text": "Lima."}\n')
    base = base.add([source], encoder=tiny_encoder, engine=Recording())
    assert embedded == ["Lima.", "Ulm.", "Jena."]
    assert texts(base) == ["Jena.", "Lima."]
    (row,) = base.row_of("a.jsonl:2")
    assert (base.passage(row).text, base.passage(row).line) == ("Lima.", 2)


def test_a_document_is_its_passages_in_reading_order(output, tmp_path, tiny_encoder):
    sentences = ["Lima is the capital of peru.", "Ulm is on the danube."]
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text("\n".join(["# Places", *sentences]))
    base = KnowledgeBase.build([tmp_path], output, encoder=tiny_encoder, chunking=Chunking(words=6))
    (tmp_path / "a.md").write_text("\n".join(["# Places", "The river is a new one.", *sentences]))
    base = base.add([tmp_path / "a.md"], encoder=tiny_encoder)
    for name, added in (("a.md", ["The river is a new one."]), ("b.md", [])):
        document = base.document(name)
        assert [passage.id for passage in document] == [f"{name}#{n}" for n in range(len(document))]
        assert {passage.source for passage in document} == {str(tmp_path / name)}
        text = " ".join(passage.text for passage in document)
        assert text.removeprefix("# Places").split() == " ".join([*added, *sentences]).split()
        starts = [passage.start for passage in document]
        assert starts == sorted(starts)
    assert base.document("c.md") == []


def test_a_source_that_cannot_be_read_is_skipped_and_reported(kb, notes, tiny_encoder, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 1)
    (notes / "new.txt").write_text("A new text.")
    (notes / "peru.txt").write_bytes(b"\xff")
    (notes / "bad.jsonl").write_text('{"text": "good"}\nbad\n')
    with pytest.raises(SourceError, match=r"bad\.jsonl|peru"):
        kb.add([notes], encoder=tiny_encoder, strict=True)
    assert kb.latest() is kb
    base = kb.add([notes], encoder=tiny_encoder)
    assert len(base.manifest.change.skipped) == 2
    # What was written of a source before it failed does not count; the old passages of one stay.
    assert texts(base) == [
        "A new text.",
        "Lima is the capital of peru.",
        "The river is a river.",
        "Ulm is on the danube.",
    ]
    assert base.manifest.documents == 4
    with pytest.warns(SourceWarning, match="peru"):
        assert base.add([notes], encoder=tiny_encoder) is base
    with pytest.raises(SourceError, match="peru"):
        base.add([notes / "peru.txt"], encoder=tiny_encoder)


def test_a_file_that_changes_while_it_is_read(kb, notes, tiny_encoder, monkeypatch):
    from ragweave.knowledge.ingest.loaders import text

    original = text.read_plain

    def reading(file):
        yield from original(file)
        with Path(file.path).open("a") as content:
            content.write(" more")

    monkeypatch.setattr(text, "read_plain", reading)
    (notes / "new.txt").write_text("A new text.")
    with pytest.warns(SourceWarning, match=r"new\.txt changed while it was read"):
        assert kb.add([notes], encoder=tiny_encoder).version == kb.version


def test_an_id_that_another_source_has(kb, tmp_path, tiny_encoder):
    (tmp_path / "ulm.txt").write_text("Another text about ulm.")
    with pytest.raises(SourceError, match=r"'ulm.txt' is in the knowledge base already, from .*notes"):
        kb.add([tmp_path / "ulm.txt"], encoder=tiny_encoder)
    assert kb.latest() is kb


def test_another_encoder_is_refused(kb, output, notes, tmp_path):
    other = load_tiny_encoder(save_tiny_encoder(tmp_path / "other", seed=1))
    with pytest.raises(EncoderMismatchError, match="tiny"):
        kb.add([notes], encoder=other)
    with pytest.raises(EncoderMismatchError):
        KnowledgeBase.open(output, encoder=other)


def broken(self, texts, **_):
    if not any(texts):  # the question for its dimension
        return np.zeros((1, 16), np.float32)
    raise RuntimeError("out of order")


def test_rebuilding(kb, output, notes, tiny_encoder, tmp_path, monkeypatch):
    for refused in (
        lambda: KnowledgeBase.build([notes], output, encoder=tiny_encoder),
        lambda: check_output(output, overwrite=False),
    ):
        with pytest.raises(KnowledgeBaseError, match="already"):
            refused()
    check_output(output, overwrite=True)
    shorter = tmp_path / "shorter"
    shorter.mkdir()
    (shorter / "only.txt").write_text("Jena is on the saale.")
    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_encoder), "encode", broken)
        with pytest.raises(RuntimeError, match="out of order"):
            KnowledgeBase.build([shorter], output, encoder=tiny_encoder, overwrite=True)
    assert kb.latest() is kb
    before = [kb.passage(row) for row in kb.row_of("peru.txt")]
    new = KnowledgeBase.build([shorter], output, encoder=tiny_encoder, overwrite=True)
    assert_like_a_new_build(new, shorter, tiny_encoder, tmp_path / "fresh")
    assert [passage.text for passage in before] == ["Lima is the capital of peru."]
    assert len(kb.latest()) == 1
    assert new.add([shorter], encoder=tiny_encoder) is new


def test_a_first_build_that_fails_can_be_repeated(output, notes, tmp_path, tiny_encoder, monkeypatch):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    with pytest.raises(SourceError, match="hold no text"):
        KnowledgeBase.build([empty], output, encoder=tiny_encoder)
    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_encoder), "encode", broken)
        with pytest.raises(RuntimeError, match="out of order"):
            KnowledgeBase.build([notes], output, encoder=tiny_encoder)
    with pytest.raises(KnowledgeBaseError, match="no knowledge base at"):
        KnowledgeBase.open(output)
    assert len(KnowledgeBase.build([notes], output, encoder=tiny_encoder)) == 3


def test_an_addition_that_fails_in_the_middle_changes_nothing(kb, notes, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 1)
    before = texts(kb)
    (notes / "ulm.txt").write_text("Ulm lies in the south.")
    (notes / "new.txt").write_text("A new text.")
    encode, calls = type(tiny_encoder).encode, []

    def failing(self, shard, **options):
        calls.append(shard)
        if len(calls) == 2:
            raise RuntimeError("out of order")
        return encode(self, shard, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_encoder), "encode", failing)
        with pytest.raises(RuntimeError, match="out of order"):
            kb.add([notes], encoder=tiny_encoder)
    assert kb.latest() is kb
    assert texts(kb) == before
    new = kb.add([notes], encoder=tiny_encoder)
    assert_like_a_new_build(new, notes, tiny_encoder, tmp_path / "fresh")


def test_readers_see_nothing_of_a_change_before_it_is_complete(kb, output, notes, tiny_encoder, monkeypatch):
    """While a source is replaced, its old passages are found until its new ones are."""
    (notes / "ulm.txt").write_text("Ulm lies in the south.")
    encode, seen = type(tiny_encoder).encode, []

    def looking(self, shard, **options):
        reader = KnowledgeBase.open(output)
        seen.append([reader.passage(row).text for row in reader.row_of("ulm.txt")])
        return encode(self, shard, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_encoder), "encode", looking)
        new = kb.add([notes], encoder=tiny_encoder)
    assert seen == [["Ulm is on the danube."]]
    assert [new.passage(row).text for row in new.row_of("ulm.txt")] == ["Ulm lies in the south."]


def test_results_can_be_looked_up_after_a_deletion(kb, output, tiny_encoder):
    _, rows = kb.search(tiny_encoder.encode(["ulm"]), 3)
    KnowledgeBase.open(output).delete(ids=["ulm.txt", "peru.txt"])
    assert len({kb.passage(row).id for row in rows[0]}) == 3
    assert kb.vectors_of(rows[0]).shape == (3, 16)


def test_texts_of_all_kinds(output, tmp_path, tiny_encoder):
    wild = [
        "it's \"quoted\" and \\back\\ 'slashed'); DROP TABLE kb; --",
        "emoji 🙂 and 漢字, tab\tand {braces} %s %(n)s",
        "nul \\u0000 inside",
        "long " + "abcdefghi " * 6000,
    ]
    folder = tmp_path / 'it\'s "a" \\folder'
    folder.mkdir()
    lines = [
        f'{{"id": "id {n} \'\\" 🙂", "title": "t\' {n}", "text": "{_escaped(text)}"}}'
        for n, text in enumerate(wild)
    ]
    (folder / "wild.jsonl").write_text("\n".join(lines))
    base = KnowledgeBase.build([folder], output, encoder=tiny_encoder, chunking=Chunking(words=10_000))
    rows = base.search(np.ones((1, 16), np.float32), len(base))[1][0]
    passages = {base.passage(row).document_id: base.passage(row) for row in rows}
    assert passages["id 0 '\" 🙂"].text == wild[0]
    assert passages["id 1 '\" 🙂"].text == wild[1].replace("\t", " ")
    # PostgreSQL holds no NUL: the replacement character stands there.
    assert passages["id 2 '\" 🙂"].text.replace("\ufffd", "\0") == "nul \0 inside"
    assert passages["id 3 '\" 🙂"].text == wild[3].strip()
    assert base.row_of("id 0 '\" 🙂") == base.row_of("id 0 '\" 🙂#0") != []
    left = base.delete(ids=["id 1 '\" 🙂"])
    assert len(left) == 3
    assert len(left.delete(sources=[str(folder / "wild.jsonl")])) == 0


def _escaped(text):
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return escaped.replace("\\\\u0000", "\\u0000")


@pytest.mark.parametrize("kind", ["flat", "hnsw", "sq8"])
def test_more_deleted_than_requested(output, tmp_path, tiny_encoder, kind):
    """What is found first is deleted, and the search has to continue behind it."""
    if kind == "sq8" and isinstance(output, str):
        pytest.skip("PostgreSQL has no such index")
    lines = "".join(f'{{"id": "{n}", "text": "river {n} of peru"}}\n' for n in range(60))
    (tmp_path / "rivers.jsonl").write_text(lines)
    base = KnowledgeBase.build([tmp_path / "rivers.jsonl"], output, encoder=tiny_encoder, index=kind)
    question = tiny_encoder.encode(["river 7"])
    everything = base.search(question, 60)[1][0]
    deleted = [base.passage(row).document_id for row in everything[:40]]
    left = base.delete(ids=deleted)
    assert left.search(question, 5)[1][0].tolist() == everything[40:45].tolist()
    assert (left.search(question, 30)[1][0] >= 0).sum() == 20


def test_several_threads_search_at_once(kb, tiny_encoder):
    questions = tiny_encoder.encode(["lima", "ulm", "river"])
    expected = kb.search(questions, 3)[1]

    def search(_):
        _, rows = kb.search(questions, 3)
        return rows, [kb.passage(row).id for row in rows[0]]

    with ThreadPoolExecutor(8) as pool:
        for rows, ids in pool.map(search, range(40)):
            assert (rows == expected).all()
            assert len(set(ids)) == 3


def test_where_passages_come_from(output, tmp_path, tiny_encoder):
    text = "# Title\n\nOne is here.\nTwo is\n  there. Three is far away.\n\fFour is on page two."
    (tmp_path / "a.md").write_text(text)
    base = KnowledgeBase.build([tmp_path / "a.md"], output, encoder=tiny_encoder, chunking=Chunking(words=3))
    rows = base.search(np.ones((1, 16), np.float32), len(base))[1][0]
    passages = base.passages(rows)
    assert len(passages) >= 4
    for passage in passages:
        assert text[passage.start : passage.end].split() == passage.text.split()
        assert passage.line == text[: passage.start].count("\n") + 1
        assert passage.page == text[: passage.start].count("\f") + 1


def test_an_id_of_a_passage_and_of_a_document_names_the_passage(output, tmp_path, tiny_encoder):
    source = tmp_path / "two.jsonl"
    source.write_text('{"id": "a", "text": "lima"}\n{"id": "a#0", "text": "ulm"}\n')
    base = KnowledgeBase.build([source], output, encoder=tiny_encoder)
    (row,) = base.row_of("a#0")
    assert base.passage(row).document_id == "a"
    base = base.delete(ids=["a#0"])
    assert texts(base) == ["ulm"]
    base = base.delete(ids=["a#0"])  # now the id of the document alone
    assert len(base) == 0
    base.close()
