"""Questions answered from PostgreSQL: by the pipeline, the retriever and the command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from ragweave import KnowledgeBase, RagPipeline
from ragweave.cli import app
from ragweave.errors import EncoderMismatchError
from ragweave.types import SearchSettings
from tests.support.databases import PASSWORD
from tests.support.encoders import load_tiny_encoder, save_tiny_encoder
from tests.support.pipelines import save_rag_model

QUESTIONS = ["the capital of peru", "ulm"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert PASSWORD not in result.output
    return result


@pytest.fixture(scope="module")
def model_path(tmp_path_factory, tiny_encoder_path):
    return save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path)


def test_answers_are_those_from_a_folder(uri, notes, tiny_encoder, model_path, tmp_path):
    KnowledgeBase.build([notes], uri, encoder=tiny_encoder)
    KnowledgeBase.build([notes], tmp_path / "kb", encoder=tiny_encoder)
    for search in (None, SearchSettings(kind="hybrid")):
        postgres, folder = (
            RagPipeline.from_pretrained(model_path, knowledge_base=path, search=search, dtype="float32")
            for path in (uri, tmp_path / "kb")
        )
        for answer, expected in zip(
            *(pipeline(QUESTIONS, n_docs=3, max_new_tokens=4) for pipeline in (postgres, folder)), strict=True
        ):
            assert answer.answer == expected.answer
            assert answer.score == pytest.approx(expected.score, abs=1e-4)
            assert [(one.id, one.source) for one in answer.passages] == [
                (one.id, one.source) for one in expected.passages
            ]
    pipeline = RagPipeline.from_pretrained(model_path, knowledge_base=uri, dtype="float32")
    vectors, rows, docs = pipeline.retriever.retrieve(tiny_encoder.encode(QUESTIONS), 3)
    assert (vectors.shape, rows.shape, len(docs)) == ((2, 3, 16), (2, 3), 2)


def test_a_pipeline_goes_on_to_what_was_added(uri, notes, tiny_encoder, model_path, tmp_path):
    base = KnowledgeBase.build([notes], uri, encoder=tiny_encoder)
    pipeline = RagPipeline.from_pretrained(model_path, knowledge_base=base, dtype="float32")
    assert pipeline.refresh() is False
    (notes / "lima.txt").write_text("Lima, lima.")
    KnowledgeBase.open(uri).add([notes], encoder=tiny_encoder)
    assert pipeline.refresh() is True
    assert len(pipeline("lima", n_docs=4, max_new_tokens=3).passages) == 4
    other = load_tiny_encoder(save_tiny_encoder(tmp_path / "other", seed=1))
    KnowledgeBase.build([notes], uri, encoder=other, overwrite=True)
    with pytest.raises(EncoderMismatchError):
        pipeline.refresh()


def test_commands(uri, notes, tiny_encoder_path, model_path):
    built = done("index", notes, "--output", uri, "--model", tiny_encoder_path)
    assert "3 passages from 3 documents, version " in built.stdout
    assert "(3 passages added, 3 sources read)" in built.stdout
    again = run("index", notes, "--output", uri, "--model", tiny_encoder_path)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    (notes / "new.txt").write_text("A new text.")
    (notes / "bad.txt").write_bytes(b"\xff")
    added = done("add", uri, notes)
    assert "(1 passage added, 1 source read, 3 sources unchanged, 1 source skipped)" in added.stdout
    assert "bad.txt" in added.stderr
    assert "(nothing has changed)" in done("add", uri, notes).stdout
    deleted = json.loads(done("delete", uri, "--id", "ulm.txt", "--source", "**/new.txt", "--json").stdout)
    assert (deleted["passages"], deleted["documents"]) == (2, 2)
    done("compact", uri)
    info = json.loads(done("info", uri, "--json").stdout)
    assert (info["passages"], info["index"], info["factory"]) == (2, "auto", "Flat")
    result = done("ask", "--kb", uri, "--model", model_path, "--max-new-tokens", 3, "--json", *QUESTIONS)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [len(answer["passages"]) for answer in answers] == [2, 2]


def test_mistakes(kb, uri, postgres, notes, tiny_encoder_path):
    model = ("--model", tiny_encoder_path)
    for arguments, words in (
        (("versions", uri), "serves only the current version"),
        (("rollback", uri, "000001"), "serves only the current version"),
        (("info", uri, "--verify"), "own tools"),
        (("add", uri, notes, "--resume", *model), "without --resume"),
        (("delete", uri, "--id", "gone"), "no passage or document 'gone'"),
        (("delete", uri, "--source", "gone"), "Nothing in"),
        (("info", postgres.uri()), "There is no knowledge base at"),
        (("index", notes, "--output", postgres.uri(), "--index", "ivfpq", *model), "no index 'ivfpq'"),
        (("info", "redis://localhost"), "no database for redis://"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("error: ")
        assert words in result.stderr
        assert PASSWORD not in result.stderr
        assert "Traceback" not in result.stderr
