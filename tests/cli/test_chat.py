"""ragweave chat: follow-ups, commands, and questions from standard input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ragweave import RagPipeline
from ragweave.cli import app
from ragweave.types import SearchSettings
from tests.support.pipelines import build_knowledge_base, save_rag_model

FIRST = "What is the capital of Peru?"


@pytest.fixture(scope="module")
def knowledge_base(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    return build_knowledge_base(tmp_path_factory.mktemp("base"), tiny_encoder_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    """A model that rewrites follow-ups."""
    folder = save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, "token", "llama")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "rewrite_prefix": "Talk: "}), encoding="utf-8")
    return folder


def chat(knowledge_base: Path, model: Path, lines: list[str], *arguments: str) -> Result:
    options = ["chat", "--kb", str(knowledge_base), "--model", str(model), "--dtype", "float32"]
    return CliRunner().invoke(app, [*options, "--max-new-tokens", "4", *arguments], input="\n".join(lines))


def test_follow_ups_are_searched_for_as_they_stand_alone(knowledge_base: Path, model: Path):
    conversation = RagPipeline.from_pretrained(
        model,
        knowledge_base=knowledge_base,
        search=SearchSettings("hybrid", "rrf", candidates=2),
        dtype="float32",
    ).chat()
    questions = [
        FIRST,
        "and Kenya's coast?",
        "how long is it?",
        "and Chile, 2019?",
        "since when",
        "Who says so?",
    ]
    expected = []
    for question in questions:
        standalone = conversation.standalone(question)
        answer = conversation.ask(question, num_beams=2, max_new_tokens=4, min_confidence=1.0)
        expected += [f"searched for: {standalone}"] if standalone != question else []
        expected += [answer.answer, answer.judgement]
    assert any(line.startswith("searched for: ") for line in expected)
    search = ["--retrieval", "hybrid", "--fusion", "rrf", "--candidates", "2", "--beams", "2"]
    result = chat(knowledge_base, model, questions, "--min-confidence", "1", *search)
    assert result.exit_code == 0, result.output
    # The terminal wraps lines, and shows control characters as \ufffd or not at all.
    unseen = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]"
    assert re.sub(unseen, "", result.stdout).split() == re.sub(unseen, "", " ".join(expected)).split()


def test_commands(knowledge_base: Path, model: Path):
    lines = ["/sources", FIRST, "/sources", "/new", "/sources", "", "/what", "/quit", FIRST]
    result = chat(knowledge_base, model, lines, "--answer-anyway")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("There is no answer yet.") == 2
    assert result.stdout.count("posterior") == 1
    assert result.stdout.count("/quit ends.") == 2
    assert result.stdout.count("confidence") == 1  # nothing after /quit is read


def test_a_question_that_cannot_be_answered_does_not_end_the_conversation(knowledge_base: Path, model: Path):
    result = chat(knowledge_base, model, ["Lima " * 200, FIRST], "--min-confidence", "1")
    assert result.exit_code == 0, result.output
    assert "ask a shorter one" in result.stderr
    assert "The documents do not say." in result.stdout
    assert "best guess" in result.stdout
