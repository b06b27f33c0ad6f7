"""KnowledgeBase in a folder: reading, searching, damaged files, and what importing it loads."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ragweave.errors import (
    ConfigurationError,
    EncoderMismatchError,
    IndexDataError,
    KnowledgeBaseError,
    ModelNotFoundError,
    QuestionError,
    ShapeError,
    SourceError,
)
from ragweave.knowledge import store
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.chunking import chunk
from ragweave.knowledge.ingest.loaders.loader import read_documents
from ragweave.knowledge.ingest_settings import Chunking
from ragweave.types import Place, SearchSettings
from tests.support.encoders import load_tiny_encoder, save_tiny_encoder


@pytest.fixture
def copy(base, tmp_path):
    """A copy of the knowledge base that a test may damage."""
    return shutil.copytree(base.path, tmp_path / "kb")


def file_of(path, name):
    """A file of the only version, or of its only segment."""
    return next(file for kind in ("versions", "segments") for file in (path / kind / "000001").glob(name))


def every_vector(base):
    return base.vectors_of(range(len(base)))


def test_passages_are_those_of_the_chunks_in_order(base, sources):
    expected = [
        passage for document in read_documents([sources]) for passage in chunk(document, Chunking(words=20))
    ]
    assert len(base) == len(expected) > 2
    assert base.passages(range(len(base))) == expected


def test_vectors_are_those_of_the_passages_with_titles(base, tiny_encoder):
    passages = base.passages(range(len(base)))
    vectors = tiny_encoder.encode([p.text for p in passages], titles=[p.title for p in passages])
    np.testing.assert_allclose(every_vector(base), vectors, atol=1e-6)
    assert base.vectors_of([1, 0, 1]).tolist() == every_vector(base)[[1, 0, 1]].tolist()


def test_search_is_exact_and_best_first(base, tiny_encoder):
    questions = tiny_encoder.encode(["what is the capital of peru", "the danube"])
    scores, rows = base.search(questions, 2)
    exact = questions @ every_vector(base).T
    np.testing.assert_array_equal(rows[:, 0], exact.argmax(axis=1))
    np.testing.assert_allclose(scores, np.sort(exact, axis=1)[:, ::-1][:, :2], atol=1e-5)
    assert rows.dtype == np.int64


def test_search_for_more_than_there_are(base, tiny_encoder):
    scores, rows = base.search(tiny_encoder.encode(["lima"]), len(base) + 3)
    assert sorted(rows[0, : len(base)]) == list(range(len(base)))
    assert rows[0, len(base) :].tolist() == [-1, -1, -1]
    assert np.isneginf(scores[0, len(base) :]).all()
    assert np.isfinite(scores[0, : len(base)]).all()


def test_search_in_words(base, tiny_encoder, tmp_path):
    kb = KnowledgeBase.open(base.path, encoder=tiny_encoder)
    vectors = tiny_encoder.encode(["what is the capital of peru", "the danube"])
    expected = [[one.id for one in base.passages(rows)] for rows in kb.search(vectors, 2)[1]]
    results = kb.search(["what is the capital of peru", " the danube "], 2)
    assert [[passage.id for passage in passages] for passages in results] == expected
    assert results[0][0].place == base.passages(base.row_of(expected[0][0]))[0].place
    assert kb.search("what is the capital of peru", 2) == results[0]
    assert len(kb.search("ulm", 100)) == len(kb)
    words = SearchSettings("bm25")
    assert base.search("Danube", 1, settings=words)[0].id == "ulm.txt#0"  # needs no encoder
    for blank in ("", " "):
        with pytest.raises(QuestionError, match="empty"):
            base.search(["ulm", blank], settings=words)
    with pytest.raises(EncoderMismatchError):
        base.search("ulm", encoder=load_tiny_encoder(save_tiny_encoder(tmp_path, seed=3)))
    with pytest.raises(ModelNotFoundError, match=base.manifest.encoder.name):
        KnowledgeBase.open(base.path).search("ulm")


def test_search_without_questions(base):
    scores, rows = base.search(np.zeros((0, 16), dtype=np.float32), 2)
    assert scores.shape == rows.shape == (0, 2)


def test_search_refuses_what_cannot_be_right(base):
    with pytest.raises(ShapeError, match=r"\(16,\)"):
        base.search(np.zeros(16, dtype=np.float32), 1)
    with pytest.raises(IndexDataError, match="dimension 16"):
        base.search(np.zeros((1, 8), dtype=np.float32), 1)
    with pytest.raises(ConfigurationError, match="at least 1"):
        base.search(np.zeros((1, 16), dtype=np.float32), 0)


def test_rows_of_passages_and_documents(base):
    rows = base.row_of("peru.md")
    assert len(rows) > 1
    assert {base.passage(row).document_id for row in rows} == {"peru.md"}
    assert base.row_of("peru.md#1") == [rows[1]]
    assert base.row_of("nothing") == []


def test_rows_that_are_not_there(base):
    for row in (-1, len(base)):
        with pytest.raises(IndexError, match="no passage"):
            base.passage(row)


def test_several_shards(tmp_path, sources, tiny_encoder, base, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 2)
    small = KnowledgeBase.build([sources], tmp_path / "kb", encoder=tiny_encoder, chunking=Chunking(words=20))
    assert small.passages(range(len(small))) == base.passages(range(len(base)))
    np.testing.assert_allclose(every_vector(small), every_vector(base), atol=1e-6)
    assert small.row_of("peru.md") == base.row_of("peru.md")


def test_info_has_what_commands_promise_and_fits_into_json(base, tiny_encoder):
    info = json.loads(json.dumps(base.info()))
    assert info["passages"] == len(base)
    assert info["documents"] == 2  # the empty file is not a document
    assert (base.manifest.change.read, base.manifest.change.without_text) == (3, 1)
    assert info["version"] == "000001"
    assert info["encoder"] == "tiny"
    assert info["fingerprint"] == tiny_encoder.fingerprint
    assert (info["dimension"], info["index"]) == (16, "auto")
    assert info["bytes"] == sum(
        path.stat().st_size
        for path in base.path.rglob("*")
        if path.is_file() and path.name not in {"CURRENT", "manifest.json", ".writer.lock"}
    )


def test_index_satisfies_the_protocol(base, tiny_encoder):
    from ragweave.retrieval.index_protocol import Index

    index = base.as_index()
    assert isinstance(index, Index)
    index.init_index()
    assert index.is_initialized()
    assert len(index) == len(base)
    rows, vectors = index.get_top_docs(tiny_encoder.encode(["lima", "ulm"]), n_docs=len(base) + 1)
    assert rows.shape == (2, len(base) + 1)
    np.testing.assert_array_equal(vectors[:, :-1], every_vector(base)[rows[:, :-1]])
    np.testing.assert_array_equal(vectors[:, -1], np.zeros((2, 16)))
    docs = index.get_doc_dicts(rows)
    first = base.passage(rows[1, 0])
    assert {name: values[0] for name, values in docs[1].items()} == {
        "id": first.id,
        "document_id": first.document_id,
        "title": first.title,
        "text": first.text,
        "source": first.source,
        "start": first.start,
        "end": first.end,
        "line": first.line,
        "page": 0,
        "slide": 0,
        "sheet": "",
        "table_row": 0,
        "heading": "Peru",
        "metadata": first.metadata,
        "place": first.place,
    }
    missing = [values[-1] for values in docs[0].values()]
    assert missing == [""] * 5 + [0] * 5 + ["", 0, "", "{}", Place(start=0, end=0)]


def test_opening_again_with_the_same_encoder(base, tiny_encoder):
    again = KnowledgeBase.open(str(base.path), encoder=tiny_encoder)
    assert again.manifest == base.manifest
    again.verify()


def test_another_encoder_is_named_beside_the_right_one(base, tmp_path):
    other = load_tiny_encoder(save_tiny_encoder(tmp_path / "other", seed=1))
    other.name = "the-other"
    with pytest.raises(EncoderMismatchError, match=r"embedded by the encoder tiny .* this is the-other"):
        KnowledgeBase.open(base.path, encoder=other)


def test_not_a_knowledge_base(tmp_path):
    with pytest.raises(KnowledgeBaseError, match=r"There is no knowledge base at .*gone"):
        KnowledgeBase.open(tmp_path / "gone")
    with pytest.raises(KnowledgeBaseError, match="is not a knowledge base"):
        KnowledgeBase.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(KnowledgeBaseError, match="is not a knowledge base"):
        KnowledgeBase.open(tmp_path / "file")


@pytest.mark.parametrize("pointer", ["", "../../elsewhere", "000001/../000001", "nonsense", "\xff"])
def test_damaged_pointer_is_not_followed(copy, pointer):
    (copy / "CURRENT").write_text(pointer, encoding="latin-1")
    with pytest.raises(KnowledgeBaseError, match=r"pointer .* is damaged"):
        KnowledgeBase.open(copy)


def test_pointer_to_a_version_that_is_gone(copy):
    (copy / "CURRENT").write_text("000009 0123456789abcdef\n")
    with pytest.raises(KnowledgeBaseError, match=r"manifest .* cannot be read"):
        KnowledgeBase.open(copy)


@pytest.mark.parametrize(
    "name", ["passages.arrow", "vectors.npy", "hashes.npy", "deleted.npy", "sources.json"]
)
def test_missing_and_cut_off_files(copy, name):
    path = file_of(copy, name)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(KnowledgeBaseError, match=rf"damaged: .*{name} has \d+ bytes"):
        KnowledgeBase.open(copy)
    path.unlink()
    with pytest.raises(KnowledgeBaseError, match=f"{name} is missing"):
        KnowledgeBase.open(copy)


@pytest.mark.parametrize(
    "name", ["passages.arrow", "vectors.npy", "hashes.npy", "deleted.npy", "sources.json"]
)
def test_files_of_the_right_size_with_other_content(copy, name):
    path = file_of(copy, name)
    path.write_bytes(b"\x07" * path.stat().st_size)
    with pytest.raises(KnowledgeBaseError, match=name):
        KnowledgeBase.open(copy)


def test_one_flipped_bit_anywhere_is_found(base, tmp_path):
    files = [path for path in base.path.rglob("*") if path.is_file() and path.stat().st_size]
    assert {path.name for path in files} >= {"CURRENT", "manifest.json", "passages.arrow", "sources.json"}
    source = np.random.default_rng(0)
    for path in files:
        for _ in range(12):
            copy = shutil.copytree(base.path, tmp_path / "copy")
            content = bytearray(path.read_bytes())
            content[source.integers(len(content))] ^= 1 << int(source.integers(8))
            (copy / path.relative_to(base.path)).write_bytes(content)
            try:
                opened = KnowledgeBase.open(copy)
                opened.verify()
            except KnowledgeBaseError:
                pass
            else:  # white space beside a pointer or in a manifest means nothing
                assert path.name in {"CURRENT", "manifest.json"}
                assert (opened.version, opened.manifest) == (base.version, base.manifest)
            shutil.rmtree(copy)


def test_one_flipped_byte_is_found_by_verify(copy):
    path = file_of(copy, "vectors.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(KnowledgeBaseError, match=r"vectors\.npy has changed"):
        KnowledgeBase.open(copy).verify()


def test_several_sources_that_hold_no_text(tmp_path, tiny_encoder):
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(SourceError, match="no text"):
        KnowledgeBase.build([tmp_path / "a.txt"], tmp_path / "kb", encoder=tiny_encoder)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_reading_loads_nothing_that_writes(base):
    program = (
        "import sys\n"
        "from ragweave.knowledge.base import KnowledgeBase\n"
        "base = KnowledgeBase.open(sys.argv[1])\n"
        "base.search(base.vectors_of([0]), 1), base.search_text(['lima'], 1), base.passage(0), base.info()\n"
        "heavy = {'torch', 'transformers', 'datasets', 'psycopg', 'filelock', 'markdown_it'}\n"
        "writing = [name for name in sys.modules if name.startswith('ragweave.knowledge.ingest.')]\n"
        "print(sorted(heavy & set(sys.modules)) + writing)"
    )
    command = [sys.executable, "-c", program, str(base.path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
