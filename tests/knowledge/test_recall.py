"""The recall that is measured at every change is the recall that searches have, and "auto" keeps to its promise."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ragweave import KnowledgeBase
from ragweave.cli import app
from ragweave.knowledge import manifest, vector_index
from ragweave.knowledge.ingest import folder_writer
from ragweave.knowledge.postgres import tables

DEPTHS = ("5", "50", "100")


class Scattered:
    """Makes vectors without any structure, which a graph finds badly."""

    name, fingerprint, pooling, normalize, max_length, dimension = "scattered", "s", "none", True, None, 64

    def encode(self, texts, *, titles=None, progress=None):
        vectors = np.stack([np.random.default_rng([*text.encode()]).normal(size=64) for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write(folder, name, first, count):
    lines = (f'{{"id": "{n}", "text": "passage {n}"}}\n' for n in range(first, first + count))
    (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder / f"{name}.jsonl"


def recall_of(base, live, k, questions=40):
    """The recall of searches for passages that are like some that there are."""
    vectors = Scattered().encode([f"passage {n}" for n in live])
    asked = vectors[:questions] + np.float32(0.01)
    exact = np.argsort(-(asked @ vectors.T), axis=1, kind="stable")[:, :k]
    rows = base.search(asked, k)[1]
    found = [{int(base.passage(row).document_id) for row in some if row >= 0} for some in rows.tolist()]
    near = [{live[position] for position in some} for some in exact.tolist()]
    return sum(len(one & other) for one, other in zip(found, near, strict=True)) / (k * questions)


@pytest.fixture(params=["folder", "postgresql"])
def output(request, tmp_path):
    return tmp_path / "kb" if request.param == "folder" else request.getfixturevalue("postgres").uri()


def test_recall_is_measured_at_every_change(output, tmp_path, monkeypatch):
    monkeypatch.setattr(vector_index, "_EXACT_ROWS", 100)  # or so few rows would all be compared
    monkeypatch.setattr(folder_writer, "FLAT_ADDITIONS", 100)
    encoder, count = Scattered(), 2500
    base = KnowledgeBase.build([write(tmp_path, "a", 0, count)], output, encoder=encoder, index="hnsw")

    def check(base, live):
        assert set(base.info()["recall"]) == set(DEPTHS)
        for k in DEPTHS:
            assert recall_of(base, live, int(k)) == pytest.approx(base.info()["recall"][k], abs=0.12)
        return base

    check(base, list(range(count)))
    base = base.add([write(tmp_path, "b", count, 600)], encoder=encoder)
    check(base, list(range(count + 600)))
    (segment, *_) = base.manifest.segments
    base = base.delete(ids=["7"])
    assert base.manifest.segments[0].measured == segment.measured  # one passage of thousands does not matter
    base = base.delete(ids=[str(n) for n in range(8, 900)])
    assert base.manifest.segments[0].measured == base.manifest.segments[0].passages
    live = [n for n in range(count + 600) if not 7 <= n < 900]
    check(base, live)
    check(base.compact(), live)
    if not isinstance(output, str):
        shown = CliRunner().invoke(app, ["info", str(output)]).stdout
        assert "@5, " in shown and "@100" in shown


def test_auto_reaches_its_recall_by_a_broader_search(output, tmp_path, monkeypatch):
    monkeypatch.setattr(vector_index, "AUTO_FLAT", 1000)
    monkeypatch.setattr(tables, "EXACT_UP_TO", 1000)
    monkeypatch.setattr(vector_index, "_EXACT_ROWS", 100)
    path = write(tmp_path, "a", 0, 2500)
    base = KnowledgeBase.build([path], output, encoder=Scattered())
    (segment,) = base.manifest.segments
    assert segment.factory != "Flat" and min(segment.recall.values()) >= 0.95
    assert min(recall_of(base, list(range(2500)), int(k)) for k in DEPTHS) >= 0.93


def test_auto_compares_all_where_nothing_else_reaches_the_recall(output, tmp_path, monkeypatch):
    monkeypatch.setattr(vector_index, "AUTO_FLAT", 100)
    monkeypatch.setattr(tables, "EXACT_UP_TO", 100)
    monkeypatch.setattr(vector_index, "_LEAST_RECALL", 1.1)
    base = KnowledgeBase.build([write(tmp_path, "a", 0, 200)], output, encoder=Scattered())
    assert (base.info()["factory"], base.info()["recall"]) == ("Flat", dict.fromkeys(DEPTHS, 1.0))
    base = base.add([write(tmp_path, "b", 200, 10)], encoder=Scattered())
    assert recall_of(base, list(range(210)), 5) == 1
    assert base.manifest.index.kind == "auto"


def test_many_deleted_rows_are_compacted_by_sync(tmp_path, tiny_encoder_path, monkeypatch):
    monkeypatch.setattr(manifest, "COMPACT_ROWS", 3)
    notes, kb = tmp_path / "notes", tmp_path / "kb"
    notes.mkdir()
    for number in range(12):
        (notes / f"{number}.txt").write_text(f"River {number} of Peru.")

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result

    run("index", notes, "--output", kb, "--model", tiny_encoder_path)
    few = run("delete", kb, "--id", "0.txt", "--id", "1.txt")
    assert "compact" not in few.stderr
    many = run("delete", kb, "--id", "2.txt", "--json")
    assert "25% of the rows are deleted. 'ragweave compact" in many.stderr
    assert json.loads(many.stdout)["deleted"] == 0.25
    assert "ragweave compact" in run("info", kb).stderr
    (notes / "11.txt").unlink()
    synced = run("sync", kb, notes)
    assert "1 deleted" in synced.stdout and "Compacted: version 000005" in synced.stderr
    base = KnowledgeBase.open(kb)
    assert (len(base), base.manifest.rows) == (8, 8)
    assert len(KnowledgeBase.open(kb, version="000001")) == 12  # older versions stay
