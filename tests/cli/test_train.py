"""``ragweave train``: from a file of questions to a model that answers."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from ragweave import RagPipeline
from ragweave.cli import app
from tests.support.pipelines import build_knowledge_base, save_rag_model


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_encoder_path):
    folder = tmp_path_factory.mktemp("train")
    build_knowledge_base(folder, tiny_encoder_path)
    save_rag_model(folder / "model", tiny_encoder_path)
    rows = [
        {"question": "Where is Lima?", "answers": ["Peru"], "passage": "peru.txt"},
        {"question": "What is the capital of Kenya?", "answers": ["Nairobi"], "passage": "kenya.txt"},
        {"question": "Is Chile long?", "answers": ["yes"], "passage": "chile.txt"},
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def options(place, output, *more):
    return [
        "train", "--kb", place / "kb", "--data", place / "data.jsonl", "--model", place / "model", "--output", output,
        "--batch-size", 2, "--n-docs", 2, *more,
    ]  # fmt: skip


def test_what_was_trained_searches_as_it_was_trained_to(place, tmp_path):
    searching = ["--retrieval", "hybrid", "--dense-weight", 0.7]
    done = run(*options(place, tmp_path / "out", "--epochs", 1, "--freeze", "question-encoder", *searching))
    assert done.exit_code == 0, done.output
    pipeline = RagPipeline.from_pretrained(tmp_path / "out", knowledge_base=place / "kb")
    settings = pipeline.retriever.index.settings
    assert (settings.kind, settings.dense_weight) == ("hybrid", 0.7)


@pytest.mark.parametrize("more", [[], ["--lora", "--freeze", "question-encoder"]], ids=["all", "adapter"])
def test_what_was_trained_answers(place, tmp_path, more):
    done = run(*options(place, tmp_path / "out", "--dev", place / "data.jsonl", "--epochs", 1, *more))
    assert done.exit_code == 0, done.output
    assert "trained on 3 questions" in done.stdout
    options_of_ask = ["--kb", place / "kb", "--model", tmp_path / "out", "--json", "--max-new-tokens", 3]
    asked = run("ask", *options_of_ask, "Where is Lima?")
    assert asked.exit_code == 0, asked.output
    assert json.loads(asked.stdout)["passages"]


def test_everything_is_trained_and_the_best_is_kept(place, tmp_path):
    more = ["--end-to-end", "--patience", 1, "--tensorboard", "--dev", place / "data.jsonl", "--epochs", 3]
    done = run(*options(place, tmp_path / "out", *more))
    assert done.exit_code == 0, done.output
    assert list((tmp_path / "out").glob("**/events.out.tfevents.*"))
    saved = tmp_path / "out"
    asked = run(
        "ask", "--kb", saved / "knowledge-base", "--model", saved, "--json", "--max-new-tokens", 3, "Where?"
    )
    assert asked.exit_code == 0, asked.output
    refused = run(*options(place, tmp_path / "other", "--patience", 1))
    assert "give them with --dev" in " ".join(refused.stderr.split())


def test_a_run_goes_on(place, tmp_path):
    (tmp_path / "more.yaml").write_text("max_steps: 2\nsave_strategy: steps\nsave_steps: 1\n")
    assert run(*options(place, tmp_path / "out", "--config", tmp_path / "more.yaml")).exit_code == 0
    refused = run(*options(place, tmp_path / "out"))
    assert refused.exit_code == 1
    assert "choose another --output, or add --resume" in " ".join(refused.stderr.split())
    (tmp_path / "more.yaml").write_text("max_steps: 3\nsave_strategy: steps\nsave_steps: 1\n")
    again = run(*options(place, tmp_path / "out", "--config", tmp_path / "more.yaml", "--resume"))
    assert again.exit_code == 0, again.output
    assert (tmp_path / "out" / "checkpoint-3").is_dir()


def test_what_is_shown_meanwhile_is_no_result(place, tmp_path):
    (tmp_path / "more.yaml").write_text("logging_steps: 1\nweight_decay: 1e-2\n")
    more = ["--dev", place / "data.jsonl", "--epochs", 1, "--config", tmp_path / "more.yaml"]
    done = run(*options(place, tmp_path / "out", *more))
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == f"{tmp_path / 'out'}: trained on 3 questions."
    shown = done.stderr.splitlines()
    assert any(line.startswith("step 1 of 2: loss ") for line in shown)
    assert any(line.startswith("step 2 of 2: ") and "exact_match" in line for line in shown)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lora", "--freeze", "generator"], "choose one"),
        (["--freeze", "question-encoder", "--retriever-loss", "emdr2"], "retriever_loss is for the encoders"),
        (
            ["--freeze", "question-encoder", "--retriever-learning-rate", 1e-5],
            "retriever_learning_rate is for",
        ),
        (["--refresh-steps", 3], "refresh_steps is for training end to end"),
        (["--document-encoder", "other"], "document_encoder is for training end to end"),
        (["--engine", "ray"], "refresh_engine is for training end to end"),
        (["--device", "cuda:1"], "CUDA_VISIBLE_DEVICES=1"),
    ],
)
def test_options_that_would_do_nothing_are_refused(place, tmp_path, more, message):
    failed = run(*options(place, tmp_path / "out", *more))
    assert failed.exit_code == 1
    assert message in " ".join(failed.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "holds no arguments"),
        ("a: [", "cannot be read as YAML"),
        (None, "cannot be read"),
        ("warmup_step: 3", "'warmup_step' that training does not take: did you mean warmup_steps?"),
        ("output_dir: elsewhere", "'output_dir' that training does not take"),
        ("weight_decay: much", "weight_decay: 'much', which is no number"),
        ("label_smoothing_factor: 0.1", "set the model's label_smoothing"),
    ],
)
def test_arguments_that_cannot_be_read(place, tmp_path, text, message):
    if text is not None:
        (tmp_path / "more.yaml").write_text(text)
    failed = run(*options(place, tmp_path / "out", "--config", tmp_path / "more.yaml"))
    assert failed.exit_code == 1
    assert message in " ".join(failed.stderr.split())
    assert not (tmp_path / "out").exists()
