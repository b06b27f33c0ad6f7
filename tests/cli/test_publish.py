"""ragweave publish publishes versions to Milvus, where other commands read them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from ragweave import KnowledgeBase
from ragweave.cli import app
from tests.support.words_encoder import WordsEncoder


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def succeed():
    def call(*arguments):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


def test_versions_are_published_read_and_put_back(tmp_path, succeed):
    notes, kb, uri = tmp_path / "notes", tmp_path / "kb", f"milvus://{tmp_path}/kb.db?collection=notes"
    notes.mkdir()
    (notes / "peru.txt").write_text("Lima is the capital of peru.")
    base = KnowledgeBase.build([notes], kb, encoder=WordsEncoder())
    assert "is current, 1 passage." in succeed("publish", kb, uri)
    (notes / "ulm.txt").write_text("Ulm is on the danube.")
    base.add([notes], encoder=WordsEncoder())
    assert json.loads(succeed("publish", kb, uri, "--json"))["passages"] == 2
    assert json.loads(succeed("info", uri, "--json"))["passages"] == 2
    assert "is current, 1 passage." in succeed("publish", "--rollback", uri)
    assert json.loads(succeed("info", uri, "--json"))["passages"] == 1


@pytest.mark.parametrize("arguments", [["kb"], ["kb", "milvus:///kb.db", "--rollback"]])
def test_one_of_both_is_published_or_put_back(arguments):
    result = run("publish", *arguments)
    assert result.exit_code == 1
    assert "Give the knowledge base and the URI, or --rollback" in " ".join(result.stderr.split())
