"""ragweave ask: JSON and text output, standard input, and wrong questions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ragweave.cli import app
from tests.support.pipelines import DOCUMENTS, build_knowledge_base, save_rag_model


@pytest.fixture(scope="module")
def knowledge_base(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    return build_knowledge_base(tmp_path_factory.mktemp("base"), tiny_encoder_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    return save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path)


def ask(knowledge_base: Path, model: Path, *arguments: str, stdin: str | None = None) -> Result:
    options = ["ask", "--kb", str(knowledge_base), "--model", str(model), "--max-new-tokens", "4"]
    return CliRunner().invoke(app, [*options, *arguments], input=stdin)


def test_json_output_is_one_object_per_line(knowledge_base: Path, model: Path):
    result = ask(knowledge_base, model, "--json", "Is Chile a long country or not?", "Where is Lima?")
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["question"] for answer in answers] == ["Is Chile a long country or not?", "Where is Lima?"]
    for answer in answers:
        signals = {"score", "null_score", "confidence", "answered", "best_guess"}
        assert answer.keys() == {"question", "answer", "passages"} | signals
        posteriors = [passage["posterior"] for passage in answer["passages"]]
        assert posteriors == sorted(posteriors, reverse=True)
        assert sum(posteriors) == pytest.approx(1, abs=1e-5)
        for passage in answer["passages"]:
            assert passage["place"]["line"] == 1
            assert passage["place"]["start"] == 0
            assert passage.keys() == {
                "id",
                "title",
                "text",
                "source",
                "doc_score",
                "prior",
                "place",
                "metadata",
                "posterior",
                "null",
            }


def test_text_output(knowledge_base: Path, model: Path):
    result = ask(knowledge_base, model, "--n-docs", "2", "Where is Lima?")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "Where is Lima?"
    assert re.fullmatch(r"confidence [01]\.\d\d", lines[2])
    assert "posterior" in lines[3]
    passages = [line for line in lines[4:] if line.strip()]
    assert len(passages) == 4
    for place, words in zip(passages[::2], passages[1::2], strict=True):
        name = re.search(r"  (peru|kenya|chile)\.txt, line 1$", place)[1]
        assert words.strip(" …") in DOCUMENTS[f"{name}.txt"]


def test_a_terminal_shows_what_is_loaded(knowledge_base: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = ask(knowledge_base, model, "Where is Lima?")
    assert f"Loading the model '{model}'" in "".join(result.stderr.split("\n"))


def test_a_withheld_answer(knowledge_base: Path, model: Path):
    guess = json.loads(ask(knowledge_base, model, "--json", "--answer-anyway", "Where is Lima?").stdout)
    assert guess["answered"]
    for flags in ([], ["--explain"]):
        lines = ask(
            knowledge_base, model, "--min-confidence", "1", *flags, "Where is Lima?"
        ).stdout.splitlines()
        assert lines[1] == "The documents do not say."
        assert lines[2].endswith(f"best guess: {guess['answer']}")
        assert "Lima" in "".join(lines[4:])


def test_explain_shows_posteriors_of_each_token(knowledge_base: Path, model: Path):
    question = "Where is Lima?"
    as_json = ask(knowledge_base, model, "--json", "--explain", question)
    tokens = json.loads(as_json.stdout)["tokens"]
    as_text = ask(knowledge_base, model, "--explain", question)
    assert as_text.exit_code == 0, as_text.output
    table = as_text.stdout[as_text.stdout.index("token") :].splitlines()
    assert table[0].split() == ["token", "[1]", "[2]"]
    rows = [line.split()[-2:] for line in table[1:] if line.strip()]
    expected = [
        [f"{posterior:.3f}" for posterior in token["posteriors"]] for token in tokens if token["text"].strip()
    ]
    assert [row for row in rows if row in expected] == expected
    assert rows


def test_questions_from_standard_input(knowledge_base: Path, model: Path):
    result = ask(knowledge_base, model, "--json", "-", stdin="Where is Lima?\n\nIs Chile long?\n")
    assert [json.loads(line)["question"] for line in result.stdout.splitlines()] == [
        "Where is Lima?",
        "Is Chile long?",
    ]


def test_n_docs_above_the_number_of_passages_is_a_warning(knowledge_base: Path, model: Path):
    result = ask(knowledge_base, model, "--json", "--n-docs", "9", "Where is Lima?")
    assert result.exit_code == 0
    assert "has 3 passages" in result.stderr
    assert len(json.loads(result.stdout)["passages"]) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((" ",), "empty"), (("Lima " * 200,), "ask a shorter one")],
)
def test_invalid_questions_are_reported(
    knowledge_base: Path, model: Path, arguments: tuple[str, ...], words: str
):
    result = ask(knowledge_base, model, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert result.stdout == ""


def test_missing_knowledge_base_is_reported(tmp_path: Path, model: Path):
    for folder in (tmp_path, tmp_path / "none"):
        result = ask(folder, model, "Where is Lima?")
        assert result.exit_code == 1
        assert "knowledge base" in result.stderr
        assert "Traceback" not in result.stderr


def test_another_encoder_is_reported(knowledge_base: Path):
    result = CliRunner().invoke(app, ["ask", "--kb", str(knowledge_base), "Where is Lima?"])
    assert result.exit_code == 1
    assert "all-MiniLM-L6-v2" in result.stderr


def test_usage_errors_exit_with_2(knowledge_base: Path, model: Path):
    assert ask(knowledge_base, model, "--n-docs", "0", "Where is Lima?").exit_code == 2
    assert CliRunner().invoke(app, ["ask", "Where is Lima?"]).exit_code == 2
    assert CliRunner().invoke(app, ["ask", "--kb", str(knowledge_base)]).exit_code == 2
