"""ragweave search prints what is retrieved, and ragweave export writes passages and vectors."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ragweave import KnowledgeBase, RagConfig
from ragweave.cli import app
from ragweave.retrieval.rag_retriever import build_index
from tests.support.pipelines import DOCUMENTS


@pytest.fixture(scope="module")
def kb(tmp_path_factory, tiny_encoder_path):
    folder = tmp_path_factory.mktemp("base")
    (folder / "documents").mkdir()
    for name, text in DOCUMENTS.items():
        (folder / "documents" / name).write_text(text)
    succeed("index", folder / "documents", "--output", folder / "kb", "--model", tiny_encoder_path)
    return folder / "kb"


def run(*arguments, stdin=None):
    return CliRunner().invoke(app, list(map(str, arguments)), input=stdin)


def succeed(*arguments, stdin=None):
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_has_what_the_library_returns(kb):
    lines = succeed(
        "search", kb, "--json", "--n-docs", 2, "-", stdin="Where is Lima?\n\nlong country\n"
    ).splitlines()
    found = {line["question"]: line["passages"] for line in map(json.loads, lines)}
    assert list(found) == ["Where is Lima?", "long country"]
    for question, expected in zip(found, KnowledgeBase.open(kb).search(list(found), 2), strict=True):
        assert [hit["id"] for hit in found[question]] == [hit.id for hit in expected]
        assert [hit["prior"] for hit in found[question]] == pytest.approx([hit.prior for hit in expected])
        assert found[question][0]["place"]["line"] == 1


def test_text_and_words(kb):
    text = succeed("search", kb, "--retrieval", "bm25", "the capital of peru", "Chile")
    assert text.startswith("the capital of peru\n    score  p(z|x)  passage\n")
    assert "peru.txt, line 1" in text.splitlines()[2]
    assert succeed("search", kb, "-", stdin="\n") == ""
    assert run("search", kb, " ").exit_code == 1


def test_where_a_passage_was_read_is_never_cut_off(tmp_path, tiny_encoder_path):
    path = f"{'department-of-bridges/' * 5}minutes.txt"
    (tmp_path / "documents" / path).parent.mkdir(parents=True)
    (tmp_path / "documents" / path).write_text("The report was accepted.")
    succeed("index", tmp_path / "documents", "--output", tmp_path / "kb", "--model", tiny_encoder_path)
    lines = succeed("search", tmp_path / "kb", "report").splitlines()
    assert [line.strip() for line in lines[3:5]] == [f"{path}, line 1", "The report was accepted."]


def test_narrowed_by_metadata(tmp_path, tiny_encoder_path):
    lines = (
        {"id": name, "text": f"River {name}.", "year": year} for name, year in (("a", 2019), ("b", 2021))
    )
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    kb = tmp_path / "kb"
    succeed("index", tmp_path / "a.jsonl", "--output", kb, "--model", tiny_encoder_path, "--meta", "lang=en")
    (tmp_path / "c.txt").write_text("River three.")
    succeed("add", kb, tmp_path / "c.txt", "--meta", "lang=de", "--meta", "year=2022")
    where = "year >= 2020 and lang in ('en', 'de')"
    (line,) = succeed("search", kb, "--json", "--where", where, "river").splitlines()
    found = {hit["id"]: hit["metadata"] for hit in json.loads(line)["passages"]}
    assert found.keys() == {"b#0", "c.txt#0"}
    assert (found["b#0"]["year"], found["c.txt#0"]["lang"]) == (2021, "de")
    wrong = run("search", kb, "--where", "yeer == 1", "river")
    assert (
        wrong.exit_code == 1
        and "No passage has the column yeer. There are lang, modified, type, year" in wrong.stderr
    )
    bad = run("index", tmp_path / "c.txt", "--output", tmp_path / "no", "--meta", "lang")
    assert bad.exit_code == 1 and "NAME=VALUE" in bad.stderr and not (tmp_path / "no").exists()


def test_another_encoder_is_refused(kb, tmp_path):
    from tests.support.encoders import save_tiny_encoder

    result = run("search", kb, "--model", save_tiny_encoder(tmp_path / "other", seed=1), "Lima")
    assert result.exit_code == 1 and "was embedded by the encoder" in result.stderr


def test_export(kb, tmp_path):
    base = KnowledgeBase.open(kb)
    vectors = base.vectors_of(range(len(base)))
    succeed("export", kb, "--output", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["id"].to_pylist() == [base.passage(row).id for row in range(len(base))]
    assert np.array_equal(np.array(table["embeddings"].to_pylist(), np.float32), vectors)
    index = build_index(RagConfig(index_name="exact", dataset=str(tmp_path), retrieval_vector_size=16))
    index.init_index()
    assert index.get_top_docs(vectors[:1], 2)[0].tolist() == base.search(vectors[:1], 2)[1].tolist()

    printed = json.loads(succeed("export", kb, "--output", tmp_path / "out.jsonl", "--json"))
    assert printed["passages"] == len(base)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [(row["text"], row["line"]) for row in rows] == [
        (one.text, one.line) for one in base.passages(range(3))
    ]
    assert np.array_equal(np.array([row["embeddings"] for row in rows], np.float32), vectors)


def test_export_refuses_before_it_writes(kb, tmp_path):
    existing = tmp_path / "a.jsonl"
    existing.write_text("mine")
    for output, words in (
        (existing, "--overwrite"),
        (tmp_path / "a.csv", ".parquet nor .jsonl"),
        (tmp_path / "no" / "a.jsonl", "no folder"),
    ):
        result = run("export", kb, "--output", output)
        assert result.exit_code == 1 and words in result.stderr
    assert existing.read_text() == "mine" and [*tmp_path.iterdir()] == [existing]
    succeed("export", kb, "--output", existing, "--overwrite")
    assert existing.read_text() != "mine"
