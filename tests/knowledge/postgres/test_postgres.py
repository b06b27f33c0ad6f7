"""What is special in PostgreSQL: transactions, indexes, large vectors, schemas, permissions, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ragweave import KnowledgeBase
from ragweave.errors import ConfigurationError, KnowledgeBaseError, SourceError
from ragweave.knowledge import store
from ragweave.knowledge.base import swap
from ragweave.knowledge.manifest import FORMAT_VERSION
from ragweave.knowledge.postgres import tables
from ragweave.knowledge.store import COLUMNS
from ragweave.types import Passage
from tests.support.databases import PASSWORD


class Sized:
    """Makes vectors of any size, from the words of a text."""

    name, fingerprint, pooling, normalize, max_length = "sized", "sized", "none", False, None

    def __init__(self, dimension):
        self.dimension = dimension

    def encode(self, texts, *, titles=None, progress=None):
        generators = [np.random.default_rng(list(text.encode()) or [0]) for text in texts]
        return np.stack(
            [generator.standard_normal(self.dimension, dtype=np.float32) for generator in generators]
        )


@pytest.mark.parametrize("dimension", [1536, 1537, 2001])
def test_large_vectors_are_indexed_and_found(postgres, notes, dimension):
    encoder = Sized(dimension)
    base = KnowledgeBase.build([notes], postgres.uri(), encoder=encoder, index="hnsw")
    question = encoder.encode(["Ulm is on the danube."])
    scores, rows = base.search(question, 2)
    assert base.passage(rows[0, 0]).text == "Ulm is on the danube."
    np.testing.assert_allclose(scores[0], base.vectors_of(rows[0]) @ question[0], rtol=1e-5)
    with postgres.connect() as connection:
        table = str(base.path).rpartition("=")[2]
        (definition,) = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE tablename = %s AND indexdef LIKE '%%hnsw%%'", [table]
        ).fetchone()
    assert ("halfvec" in definition) == (dimension > 2000)


def test_a_knowledge_base_of_another_format_can_be_replaced(postgres, notes, encoder):
    uri = postgres.uri()
    base = KnowledgeBase.build([notes], uri, encoder=encoder)
    with postgres.connect() as connection:
        table = base.storage.location.table[-1]
        manifest = replace(base.manifest, format_version=FORMAT_VERSION + 1).to_json()
        connection.execute(f"UPDATE {table}_base SET manifest = %s", [manifest])  # noqa: S608
    with pytest.raises(KnowledgeBaseError, match=f"has format {FORMAT_VERSION + 1}"):
        KnowledgeBase.open(uri)
    assert len(KnowledgeBase.build([notes], uri, encoder=encoder, overwrite=True)) == len(base)


def test_vectors_that_are_too_large_for_a_graph(postgres, notes):
    with pytest.raises(
        ConfigurationError, match=r"at most 4000 dimensions, these vectors have 4001\. Choose flat"
    ):
        KnowledgeBase.build([notes], postgres.uri(), encoder=Sized(4001), index="hnsw")
    base = KnowledgeBase.build([notes], postgres.uri(), encoder=Sized(4001))
    assert base.search(Sized(4001).encode(["Ulm"]), 3)[1].shape == (1, 3)


def test_another_encoder_and_size_in_the_place_of_one_that_is_open(postgres, notes):
    uri = postgres.uri()
    old = KnowledgeBase.build([notes], uri, encoder=Sized(8)).delete(ids=["ulm.txt"])
    new = KnowledgeBase.build([notes], uri, encoder=Sized(16), overwrite=True)
    with pytest.raises(KnowledgeBaseError, match="Open the knowledge base again"):
        old.search(Sized(8).encode(["Ulm"]), 1)
    assert old.latest().manifest.dimension == new.manifest.dimension == 16
    # Rows are never assigned twice, so a cached old row is never a new one.
    assert min(new.search(Sized(16).encode(["Ulm"]), 3)[1][0]) > 3


def test_a_schema_of_its_own(postgres, notes, tiny_encoder):
    with postgres.connect() as connection:
        connection.execute("CREATE SCHEMA own")
    base = KnowledgeBase.build([notes], postgres.uri("own.kb"), encoder=tiny_encoder)
    base = KnowledgeBase.build([notes], postgres.uri("own.kb"), encoder=tiny_encoder, overwrite=True)
    assert len(base.add([notes], encoder=tiny_encoder)) == 3
    with postgres.connect() as connection:
        names = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'own' ORDER BY tablename"
        )
        assert [name for (name,) in names] == ["kb", "kb_base", "kb_copies", "kb_sources"]


def test_rights_that_are_missing(postgres, notes, tiny_encoder):
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE guest LOGIN; CREATE SCHEMA closed")
    uri = postgres.uri("closed.kb").replace("//postgres:", "//guest:")
    with pytest.raises(KnowledgeBaseError, match="does not allow this in") as caught:
        KnowledgeBase.build([notes], uri, encoder=tiny_encoder)
    assert PASSWORD not in str(caught.value)


def test_a_connection_that_is_cut_in_the_middle_of_a_change(
    postgres, notes, tiny_encoder, monkeypatch, tmp_path
):
    monkeypatch.setattr(store, "SHARD", 1)
    base = KnowledgeBase.build([notes], postgres.uri(), encoder=tiny_encoder)
    (notes / "ulm.txt").write_text("Ulm lies in the south.")
    (notes / "new.txt").write_text("A new text.")
    encode, calls = type(tiny_encoder).encode, []

    def cutting(self, shard, **options):
        calls.append(shard)
        if len(calls) == 2:
            with postgres.connect() as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE xact_start IS NOT NULL "
                    "AND application_name LIKE 'ragweave%' AND state = 'idle in transaction'"
                )
        return encode(self, shard, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_encoder), "encode", cutting)
        with pytest.raises(KnowledgeBaseError, match="run the command again"):
            base.add([notes], encoder=tiny_encoder)
    assert base.latest() is base
    assert [base.passage(row).text for row in base.row_of("ulm.txt")] == ["Ulm is on the danube."]
    assert len(base.add([notes], encoder=tiny_encoder)) == 4


_WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from ragweave import KnowledgeBase
from tests.knowledge.postgres.test_postgres import Sized

class Stuck(Sized):
    def encode(self, texts, **options):
        if any(texts):
            print("embedding", flush=True)
            sys.stdin.read()
        return super().encode(texts, **options)

KnowledgeBase.open(sys.argv[1]).add([Path(sys.argv[2])], encoder=Stuck(8))
"""


def test_a_writer_that_is_killed_leaves_no_lock_and_no_trace(postgres, notes):
    uri = postgres.uri()
    base = KnowledgeBase.build([notes], uri, encoder=Sized(8))
    (notes / "ulm.txt").write_text("Ulm lies in the south.")
    command = [sys.executable, "-c", _WRITER, uri, str(notes), str(Path(__file__).parents[3])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "embedding\n"
        with pytest.raises(KnowledgeBaseError, match=rf"Another process .*ragweave {process.pid}@.* since 2"):
            base.delete(ids=["ulm.txt"])
        os.kill(process.pid, signal.SIGKILL)
    assert base.latest() is base
    assert base.passages(base.row_of("ulm.txt"))[0].text == "Ulm is on the danube."
    assert base.add([notes], encoder=Sized(8)).manifest.change.added == 1


def test_a_first_build_that_fails_leaves_no_tables(postgres, uri, tmp_path, tiny_encoder):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(SourceError, match="hold no text"):
        KnowledgeBase.build([tmp_path / "empty.txt"], uri, encoder=tiny_encoder)
    name = uri.rpartition("=")[2]
    with postgres.connect() as connection:
        names = [table for (table,) in connection.execute("SELECT relname FROM pg_class")]
    assert [table for table in names if table == name or table.startswith(f"{name}_")] == []


def test_an_open_reader_finds_what_a_rebuild_wrote(kb, uri, tmp_path, tiny_encoder):
    (tmp_path / "only.txt").write_text("Jena is on the saale.")
    KnowledgeBase.build([tmp_path / "only.txt"], uri, encoder=tiny_encoder, overwrite=True)
    _, rows = kb.search(tiny_encoder.encode(["jena"]), 1)
    assert kb.passages(rows[0])[0].text == "Jena is on the saale."


def test_rows_of_deleted_passages_are_unknown_to_later_readers(kb, tiny_encoder):
    _, rows = kb.search(tiny_encoder.encode(["ulm"]), 3)
    late = kb.delete(ids=["ulm.txt", "peru.txt"])
    with pytest.raises(IndexError, match="was deleted"):
        late.passages(rows[0])


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_kinds_of_index(uri, tmp_path, tiny_encoder, index):
    lines = "".join(f'{{"id": "{n}", "text": "river {n} of peru"}}\n' for n in range(150))
    (tmp_path / "rivers.jsonl").write_text(lines)
    base = KnowledgeBase.build(
        [tmp_path / "rivers.jsonl"],
        uri,
        encoder=tiny_encoder,
        index=index,
        parameters={"efSearch": 200, "efConstruction": 100} if index == "hnsw" else None,
    )
    info = base.info()
    assert info["factory"] == {"flat": "Flat", "hnsw": "HNSW"}[index]
    assert set(info["recall"]) == {"5", "50", "100"} and min(info["recall"].values()) > 0.9
    questions = tiny_encoder.encode([f"river {n}" for n in range(20)])
    folder = KnowledgeBase.build([tmp_path / "rivers.jsonl"], tmp_path / "kb", encoder=tiny_encoder)
    expected, scores = folder.search(questions, 10)[0], base.search(questions, 10)[0]
    if index == "flat":
        np.testing.assert_allclose(scores, expected, atol=1e-5)
    else:
        assert np.isclose(scores, expected, atol=1e-5).mean() > 0.9
    # What is found first is deleted, and the search has to continue behind it.
    everything = base.search(questions[:1], 150)[1][0]
    deleted = [base.passage(row).id for row in everything[:100] if row >= 0]
    left = base.delete(ids=deleted)
    assert (left.search(questions[:1], 30)[1] >= 0).all()


def test_export(kb, tmp_path):
    kb.export(tmp_path / "kb.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "kb.jsonl").read_text("utf-8").splitlines()]
    numbers = [kb.row_of(row["id"])[0] for row in rows]
    assert [Passage(**{name: row[name] for name in COLUMNS}) for row in rows] == kb.passages(numbers)
    np.testing.assert_array_equal(
        np.array([row["embeddings"] for row in rows], np.float32), kb.vectors_of(numbers)
    )


def test_auto_chooses_by_size_when_building_and_compacting(uri, tmp_path, tiny_encoder, monkeypatch):
    monkeypatch.setattr(tables, "EXACT_UP_TO", 4)
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "river {n}"}}\n' for n in range(4)))
    (tmp_path / "b.jsonl").write_text('{"text": "ulm"}\n')
    base = KnowledgeBase.build([tmp_path / "a.jsonl"], uri, encoder=tiny_encoder)
    base = base.add([tmp_path / "b.jsonl"], encoder=tiny_encoder)
    assert base.info()["factory"] == "Flat"
    question = tiny_encoder.encode(["river"])
    before = base.search(question, 5)[1].tolist()
    base = base.compact()
    assert (base.info()["factory"], base.manifest.change.kind) == ("HNSW", "compact")
    assert base.search(question, 5)[1].tolist() == before
    base = base.delete(ids=["b.jsonl:1"]).compact()
    assert (base.info()["factory"], len(base)) == ("Flat", 4)


@pytest.mark.parametrize(
    ("index", "parameters", "message"),
    [
        ("sq8", {}, r"no index 'sq8'\. Choose one of auto, flat, hnsw"),
        ("IVF1024,SQ8", {}, "no index 'IVF1024,SQ8'"),
        ("hnsw", {"nprobe": 4}, "no parameter nprobe"),
    ],
)
def test_indexes_that_postgresql_does_not_have(uri, notes, tiny_encoder, index, parameters, message):
    with pytest.raises(ConfigurationError, match=message):
        KnowledgeBase.build([notes], uri, encoder=tiny_encoder, index=index, parameters=parameters)


def test_what_needs_a_folder(kb, uri, notes, tmp_path, tiny_encoder):
    for refused in (
        kb.versions,
        kb.version_names,
        kb.verify,
        lambda: kb.swap("000001"),
        lambda: swap(uri, "000001"),
        lambda: KnowledgeBase.open(uri, version="000009"),
        lambda: kb.reembed(tmp_path / "kb", encoder=tiny_encoder),
    ):
        with pytest.raises(KnowledgeBaseError, match="serves only the current version") as caught:
            refused()
        assert PASSWORD not in str(caught.value)
    with pytest.raises(ConfigurationError, match="without --resume"):
        kb.add([notes], encoder=tiny_encoder, resume=True)
    with pytest.raises(ConfigurationError, match="Give a folder"):
        kb.reembed(uri, encoder=tiny_encoder)
