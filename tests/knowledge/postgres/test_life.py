"""The life of a knowledge base in a database, the same in each: what a folder does, as far as a database can."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ragweave import KnowledgeBase
from ragweave.errors import (
    ConfigurationError,
    EncoderMismatchError,
    KnowledgeBaseError,
    SourceError,
    SourceWarning,
)
from ragweave.knowledge import store
from ragweave.knowledge.base import swap
from ragweave.knowledge.chunking_settings import Chunking
from ragweave.knowledge.base import check_output
from tests.support.databases import PASSWORD
from tests.support.encoders import load_tiny_encoder, save_tiny_encoder


def texts(base):
    """What can be found, by asking for everything."""
    _, rows = base.search(np.ones((1, 16), dtype=np.float32), len(base) + 2)
    found = [row for row in rows[0].tolist() if row >= 0]
    assert len(found) == len(set(found)) == len(base)
    return sorted(base.passage(row).text for row in found)


def as_in_a_folder(base, notes, encoder, folder):
    """Check that a knowledge base finds what one in a folder finds, with equal scores."""
    fresh = KnowledgeBase.build([notes], folder, encoder=encoder)
    questions = encoder.encode(["the capital of peru", "a river", "ulm"])
    n = len(fresh)
    assert (len(base), base.manifest.documents) == (n, fresh.manifest.documents)
    (scores, rows), (expected, wanted) = base.search(questions, n), fresh.search(questions, n)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    vectors = base.vectors_of(rows.ravel()).reshape(3, n, -1)
    np.testing.assert_allclose((questions[:, None] * vectors).sum(2), scores, atol=1e-5)
    for own, other in zip(rows[:, 0], wanted[:, 0], strict=True):
        assert base.passage(own) == fresh.passage(other)
    assert texts(base) == texts(fresh)


def test_it_finds_what_a_folder_finds(kb, server, notes, tiny_encoder, tmp_path):
    again = KnowledgeBase.open(kb.path if server.kind == "milvus" else server.uri(_table(kb)))
    for base in (kb, again):
        as_in_a_folder(base, notes, tiny_encoder, tmp_path / f"folder-{base is kb}")
    assert again.latest() is again
    assert again.row_of("old/river.txt") == again.row_of("old/river.txt#0") != []
    assert again.row_of("nothing") == []
    with pytest.raises(IndexError, match="no passage 7"):
        again.passage(7)


def _table(kb):
    return kb.path.rpartition("=")[2]


def test_info_tells_what_a_folders_does_and_no_password(kb, notes, tiny_encoder, tmp_path):
    folder = KnowledgeBase.build([notes], tmp_path / "kb", encoder=tiny_encoder).info()
    info = kb.info()
    assert folder.keys() <= info.keys()
    for name in ("documents", "passages", "fingerprint", "dimension", "index", "language", "recall"):
        assert info[name] == folder[name]
    assert info["factory"] == "Flat"
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
    as_in_a_folder(new, notes, tiny_encoder, tmp_path / "fresh")
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
    three = two.delete(sources=["*/notes/*.txt"])
    assert (len(three), texts(three), three.manifest.documents) == (0, [], 0)
    scores, rows = three.search(tiny_encoder.encode(["lima"]), 2)
    assert rows.tolist() == [[-1, -1]]
    assert np.isneginf(scores).all()


def test_a_document_goes_with_the_last_of_its_passages(server, tmp_path, tiny_encoder):
    text = " ".join(f"The river {n} is in peru." for n in range(12))
    (tmp_path / "long.txt").write_text(text)
    base = KnowledgeBase.build(
        [tmp_path / "long.txt"], server.uri(), encoder=tiny_encoder, chunking=Chunking(words=20)
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


def test_what_was_deleted_by_source_can_be_added_again(kb, notes, tiny_encoder, tmp_path):
    base = kb.delete(sources=[str(notes / "ulm.txt")]).add([notes], encoder=tiny_encoder)
    as_in_a_folder(base, notes, tiny_encoder, tmp_path / "fresh")


def test_duplicates_are_left_out_and_counted(server, tmp_path, tiny_encoder):
    (tmp_path / "a.jsonl").write_text('{"title": "t", "text": "Lima."}\n{"title": "t", "text": "Lima."}\n')
    (tmp_path / "b.jsonl").write_text('{"title": "other", "text": "Lima."}\n')
    base = KnowledgeBase.build(
        [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], server.uri(), encoder=tiny_encoder
    )
    assert (len(base), base.manifest.change.duplicates) == (2, 1)
    (tmp_path / "c.jsonl").write_text('{"title": "t", "text": "Lima."}\n{"title": "t", "text": "Ulm."}\n')
    base = base.add([tmp_path / "c.jsonl"], encoder=tiny_encoder)
    assert (len(base), base.manifest.change.duplicates, base.manifest.change.added) == (3, 1, 1)
    # What a source held before it changed is no duplicate of what it holds now.
    (tmp_path / "c.jsonl").write_text('{"title": "t", "text": "Ulm."}\n{"title": "t", "text": "Jena."}\n')
    base = base.add([tmp_path / "c.jsonl"], encoder=tiny_encoder)
    assert (len(base), base.manifest.change.duplicates, base.manifest.change.added) == (4, 0, 2)


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


def test_an_id_that_another_source_has(kb, tmp_path, tiny_encoder):
    (tmp_path / "ulm.txt").write_text("Another text about ulm.")
    with pytest.raises(SourceError, match=r"'ulm.txt' is in the knowledge base already, from .*notes"):
        kb.add([tmp_path / "ulm.txt"], encoder=tiny_encoder)
    assert kb.latest() is kb


def test_another_encoder_is_refused(kb, server, notes, tmp_path):
    other = load_tiny_encoder(save_tiny_encoder(tmp_path / "other", seed=1))
    with pytest.raises(EncoderMismatchError, match="tiny"):
        kb.add([notes], encoder=other)
    with pytest.raises(EncoderMismatchError):
        KnowledgeBase.open(server.uri(_table(kb)), encoder=other)


def test_building_anew(kb, server, notes, tiny_encoder, tmp_path, monkeypatch):
    uri = server.uri(_table(kb))
    with pytest.raises(KnowledgeBaseError, match="already"):
        KnowledgeBase.build([notes], uri, encoder=tiny_encoder)
    with pytest.raises(KnowledgeBaseError, match="already"):
        check_output(uri, overwrite=False)
    check_output(uri, overwrite=True)
    shorter = tmp_path / "shorter"
    shorter.mkdir()
    (shorter / "only.txt").write_text("Jena is on the saale.")
    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_encoder), "encode", broken)
        with pytest.raises(RuntimeError, match="out of order"):
            KnowledgeBase.build([shorter], uri, encoder=tiny_encoder, overwrite=True)
    assert kb.latest() is kb
    before = [kb.passage(row) for row in kb.row_of("peru.txt")]
    new = KnowledgeBase.build([shorter], uri, encoder=tiny_encoder, overwrite=True)
    as_in_a_folder(new, shorter, tiny_encoder, tmp_path / "fresh")
    # Who had it open finds what is there now, and keeps what it has found.
    assert [passage.text for passage in before] == ["Lima is the capital of peru."]
    _, rows = kb.search(tiny_encoder.encode(["jena"]), 1)
    assert kb.passages(rows[0])[0].text == "Jena is on the saale."
    assert len(kb.latest()) == 1
    assert new.add([shorter], encoder=tiny_encoder) is new


def broken(self, texts, **_):
    if not any(texts):  # the question for its dimension
        return np.zeros((1, 16), np.float32)
    raise RuntimeError("out of order")


def test_a_first_build_that_fails_leaves_nothing(server, notes, tmp_path, tiny_encoder, monkeypatch):
    uri = server.uri()
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    with pytest.raises(SourceError, match="hold no text"):
        KnowledgeBase.build([empty], uri, encoder=tiny_encoder)
    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_encoder), "encode", broken)
        with pytest.raises(RuntimeError, match="out of order"):
            KnowledgeBase.build([notes], uri, encoder=tiny_encoder)
    assert _names_of(server, uri) == []
    with pytest.raises(KnowledgeBaseError, match="no knowledge base at"):
        KnowledgeBase.open(uri)
    assert len(KnowledgeBase.build([notes], uri, encoder=tiny_encoder)) == 3


def _names_of(server, uri):
    """Tables or collections whose names begin as that of a knowledge base."""
    name = uri.rpartition("=")[2]
    if server.kind == "milvus":
        client = server.connect()
        found = client.list_collections()
        client.close()
    else:
        with server.connect() as connection:
            found = [table for (table,) in connection.execute("SELECT relname FROM pg_class")]
    return [own for own in found if own == name or own.startswith(f"{name}_")]


def test_an_addition_that_fails_in_the_middle_changes_nothing(kb, notes, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 1)
    before = texts(kb)
    (notes / "ulm.txt").write_text("Ulm lies in the south.")
    (notes / "new.txt").write_text("A new text.")
    encode, calls = type(tiny_encoder).encode, []

    def failing(self, given, **options):
        calls.append(given)
        if len(calls) == 2:
            raise RuntimeError("out of order")
        return encode(self, given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_encoder), "encode", failing)
        with pytest.raises(RuntimeError, match="out of order"):
            kb.add([notes], encoder=tiny_encoder)
    assert kb.latest() is kb
    assert texts(kb) == before
    new = kb.add([notes], encoder=tiny_encoder)
    as_in_a_folder(new, notes, tiny_encoder, tmp_path / "fresh")


def test_texts_of_all_kinds(server, tmp_path, tiny_encoder):
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
    base = KnowledgeBase.build([folder], server.uri(), encoder=tiny_encoder, chunking=Chunking(words=10_000))
    found = {base.passage(row).document_id: base.passage(row) for row in _all(base)}
    assert found["id 0 '\" 🙂"].text == wild[0]
    assert found["id 1 '\" 🙂"].text == wild[1].replace("\t", " ")
    # PostgreSQL holds no NUL: the sign for an unknown character stands there.
    assert found["id 2 '\" 🙂"].text.replace("\ufffd", "\0") == "nul \0 inside"
    assert found["id 3 '\" 🙂"].text == wild[3].strip()
    assert base.row_of("id 0 '\" 🙂") == base.row_of("id 0 '\" 🙂#0") != []
    left = base.delete(ids=["id 1 '\" 🙂"])
    assert len(left) == 3
    assert len(left.delete(sources=[str(folder / "wild.jsonl")])) == 0


def _escaped(text):
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return escaped.replace("\\\\u0000", "\\u0000")


def _all(base):
    return base.search(np.ones((1, 16), np.float32), len(base))[1][0]


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_kinds_of_index(server, tmp_path, tiny_encoder, index):
    lines = "".join(f'{{"id": "{n}", "text": "river {n} of peru"}}\n' for n in range(150))
    (tmp_path / "rivers.jsonl").write_text(lines)
    base = KnowledgeBase.build(
        [tmp_path / "rivers.jsonl"],
        server.uri(),
        encoder=tiny_encoder,
        index=index,
        parameters={"efSearch": 200, "efConstruction": 100} if index == "hnsw" else None,
    )
    info = base.info()
    assert (info["factory"], info["recall"]) == {"flat": ("Flat", 1.0), "hnsw": ("HNSW", None)}[index]
    questions = tiny_encoder.encode([f"river {n}" for n in range(20)])
    folder = KnowledgeBase.build([tmp_path / "rivers.jsonl"], tmp_path / "kb", encoder=tiny_encoder)
    expected, found = folder.search(questions, 10)[0], base.search(questions, 10)[0]
    if index == "flat":
        np.testing.assert_allclose(found, expected, atol=1e-5)
    else:
        assert np.isclose(found, expected, atol=1e-5).mean() > 0.9
    # What is found first is deleted, and the search has to go on behind it.
    everything = base.search(questions[:1], 150)[1][0]
    gone = [base.passage(row).id for row in everything[:100] if row >= 0]
    left = base.delete(ids=gone)
    assert (left.search(questions[:1], 30)[1] >= 0).all()


def test_auto_chooses_by_size_when_building_and_compacting(server, tmp_path, tiny_encoder, monkeypatch):
    from ragweave.knowledge.postgres import index_kinds as kinds

    monkeypatch.setattr(kinds, "EXACT_UP_TO", 4)
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "river {n}"}}\n' for n in range(4)))
    (tmp_path / "b.jsonl").write_text('{"text": "ulm"}\n')
    base = KnowledgeBase.build([tmp_path / "a.jsonl"], server.uri(), encoder=tiny_encoder)
    base = base.add([tmp_path / "b.jsonl"], encoder=tiny_encoder)
    assert base.info()["factory"] == "Flat"
    before = texts(base)
    base = base.compact()
    assert (base.info()["factory"], base.manifest.change.kind) == ("HNSW", "compact")
    assert texts(base) == before
    base = base.delete(ids=["b.jsonl:1"]).compact()
    assert (base.info()["factory"], len(texts(base))) == ("Flat", 4)


@pytest.mark.parametrize(
    ("index", "parameters", "words"),
    [
        ("sq8", {}, "no index 'sq8': choose one of auto, flat, hnsw"),
        ("IVF1024,SQ8", {}, "no index 'IVF1024,SQ8'"),
        ("hnsw", {"nprobe": 4}, "no parameter nprobe"),
    ],
)
def test_kinds_of_index_that_databases_do_not_have(server, notes, tiny_encoder, index, parameters, words):
    with pytest.raises(ConfigurationError, match=words):
        KnowledgeBase.build([notes], server.uri(), encoder=tiny_encoder, index=index, parameters=parameters)


def test_what_only_a_folder_can(kb, server, notes, tiny_encoder):
    for call in (kb.versions, kb.version_names, lambda: kb.swap("000001"), lambda: swap(kb.path, "000001")):
        with pytest.raises(KnowledgeBaseError, match="keeps no versions"):
            call()
    with pytest.raises(KnowledgeBaseError, match="keeps no versions"):
        KnowledgeBase.open(server.uri(_table(kb)), version="000009")
    with pytest.raises(KnowledgeBaseError, match="own tools"):
        kb.verify()
    with pytest.raises(ConfigurationError, match="without --resume"):
        kb.add([notes], encoder=tiny_encoder, resume=True)


def test_one_writer_at_a_time_and_it_is_named(kb):
    with kb.database.changing(), pytest.raises(KnowledgeBaseError, match=r"Another process .*\d+"):
        KnowledgeBase.open(_full(kb)).delete(ids=["ulm.txt"])
    assert len(kb.delete(ids=["ulm.txt"])) == 2


def _full(kb):
    """The URI again: the servers ask no password."""
    return str(kb.path)


def test_readers_see_nothing_of_a_change_before_the_old_passages_can_go(kb, notes, tiny_encoder, monkeypatch):
    """While a source is replaced, its old passages are found until its new ones are."""
    (notes / "ulm.txt").write_text("Ulm lies in the south.")
    encode, seen = type(tiny_encoder).encode, []

    def looking(self, given, **options):
        reader = KnowledgeBase.open(_full(kb))
        seen.append([reader.passage(row).text for row in reader.row_of("ulm.txt")])
        return encode(self, given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_encoder), "encode", looking)
        new = kb.add([notes], encoder=tiny_encoder)
    assert seen == [["Ulm is on the danube."]]
    assert [new.passage(row).text for row in new.row_of("ulm.txt")] == ["Ulm lies in the south."]


def test_what_was_found_can_be_looked_up_though_it_is_deleted(kb, tiny_encoder):
    _, rows = kb.search(tiny_encoder.encode(["ulm"]), 3)
    KnowledgeBase.open(_full(kb)).delete(ids=["ulm.txt", "peru.txt"])
    assert len({kb.passage(row).id for row in rows[0]}) == 3
    assert kb.vectors_of(rows[0]).shape == (3, 16)
    late = kb.latest()
    with pytest.raises(IndexError, match="no longer"):
        late.passages(rows[0])


def test_several_threads_ask_at_once(kb, tiny_encoder):
    questions = tiny_encoder.encode(["lima", "ulm", "river"])
    expected = kb.search(questions, 3)[1]

    def ask(_):
        _, rows = kb.search(questions, 3)
        return rows, [kb.passage(row).id for row in rows[0]]

    with ThreadPoolExecutor(8) as pool:
        for rows, ids in pool.map(ask, range(40)):
            assert (rows == expected).all()
            assert len(set(ids)) == 3
