"""ragweave train: from a file of questions to a model that answers, resuming, and wrong arguments."""

from __future__ import annotations

import json
import subprocess

import pytest
from typer.testing import CliRunner

from ragweave import RagPipeline
from ragweave.cli import app
from ragweave.cli.training import TrainingProgress
from tests.support.pipelines import build_knowledge_base, save_rag_model
from tests.support.training import RefreshInProcess


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_encoder_path):
    path = tmp_path_factory.mktemp("train")
    build_knowledge_base(path, tiny_encoder_path)
    save_rag_model(path / "model", tiny_encoder_path)
    rows = [
        {"question": "Where is Lima?", "answers": ["Peru"], "passage": "peru.txt"},
        {"question": "What is the capital of Kenya?", "answers": ["Nairobi"], "passage": "kenya.txt"},
        {"question": "Is Chile long?", "answers": ["yes"], "passage": "chile.txt"},
    ]
    (path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def options(folder, output, *more):
    return [
        "train", "--kb", folder / "kb", "--data", folder / "data.jsonl", "--model", folder / "model",
        "--output", output, "--batch-size", 2, "--n-docs", 2, *more,
    ]  # fmt: skip


def test_trained_model_keeps_its_search_settings(folder, tmp_path):
    search = ["--retrieval", "hybrid", "--dense-weight", 0.7]
    result = run(*options(folder, tmp_path / "out", "--epochs", 1, "--freeze", "question-encoder", *search))
    assert result.exit_code == 0, result.output
    pipeline = RagPipeline.from_pretrained(tmp_path / "out", knowledge_base=folder / "kb")
    settings = pipeline.retriever.index.settings
    assert (settings.kind, settings.dense_weight) == ("hybrid", 0.7)


@pytest.mark.parametrize("more", [[], ["--lora", "--freeze", "question-encoder"]], ids=["all", "adapter"])
def test_trained_model_answers(folder, tmp_path, more):
    result = run(*options(folder, tmp_path / "out", "--dev", folder / "data.jsonl", "--epochs", 1, *more))
    assert result.exit_code == 0, result.output
    assert "trained on 3 questions" in result.stdout
    options_of_ask = ["--kb", folder / "kb", "--model", tmp_path / "out", "--json", "--max-new-tokens", 3]
    answered = run("ask", *options_of_ask, "Where is Lima?")
    assert answered.exit_code == 0, answered.output
    assert json.loads(answered.stdout)["passages"]


def test_end_to_end_with_patience_and_tensorboard(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", RefreshInProcess)
    more = ["--end-to-end", "--patience", 1, "--tensorboard", "--dev", folder / "data.jsonl", "--epochs", 3]
    result = run(*options(folder, tmp_path / "out", *more))
    assert result.exit_code == 0, result.output
    assert list((tmp_path / "out").glob("**/events.out.tfevents.*"))
    saved = tmp_path / "out"
    answered = run(
        "ask", "--kb", saved / "knowledge-base", "--model", saved, "--json", "--max-new-tokens", 3, "Where?"
    )
    assert answered.exit_code == 0, answered.output
    rejected = run(*options(folder, tmp_path / "other", "--patience", 1))
    assert "Give them with --dev" in " ".join(rejected.stderr.split())


def test_an_interrupted_run_says_how_to_continue(folder, tmp_path, monkeypatch):
    (tmp_path / "more.yaml").write_text("max_steps: 3\nsave_strategy: steps\nsave_steps: 1\n")
    step_end = TrainingProgress.on_step_end

    def run_until(step, *more):
        def interrupt(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise KeyboardInterrupt
            step_end(self, args, state, control, **kwargs)

        monkeypatch.setattr(TrainingProgress, "on_step_end", interrupt)
        result = run(*options(folder, tmp_path / "out", "--config", tmp_path / "more.yaml", *more))
        return result.exit_code, " ".join(result.stderr.split("Interrupted; ")[-1].split())

    assert run_until(1) == (1, "there is no checkpoint yet; the same command with --resume starts over.")
    checkpoint = tmp_path / "out" / "checkpoint-1"
    assert run_until(2, "--resume") == (
        1,
        f"run the same command with --resume to continue from {checkpoint}.",
    )
    assert run_until(None, "--resume")[0] == 0


def test_resume(folder, tmp_path):
    (tmp_path / "more.yaml").write_text("max_steps: 2\nsave_strategy: steps\nsave_steps: 1\n")
    assert run(*options(folder, tmp_path / "out", "--config", tmp_path / "more.yaml")).exit_code == 0
    rejected = run(*options(folder, tmp_path / "out"))
    assert rejected.exit_code == 1
    assert "Choose another --output, or add --resume" in " ".join(rejected.stderr.split())
    (tmp_path / "more.yaml").write_text("max_steps: 3\nsave_strategy: steps\nsave_steps: 1\n")
    again = run(*options(folder, tmp_path / "out", "--config", tmp_path / "more.yaml", "--resume"))
    assert again.exit_code == 0, again.output
    assert (tmp_path / "out" / "checkpoint-3").is_dir()


def test_progress_is_on_standard_error(folder, tmp_path):
    (tmp_path / "more.yaml").write_text("logging_steps: 1\nweight_decay: 1e-2\n")
    more = ["--dev", folder / "data.jsonl", "--epochs", 1, "--config", tmp_path / "more.yaml"]
    result = run(*options(folder, tmp_path / "out", *more))
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == f"{tmp_path / 'out'}: trained on 3 questions."
    shown = result.stderr.splitlines()
    assert any(line.startswith("step 1 of 2: loss ") for line in shown)
    assert any(line.startswith("step 2 of 2: ") and "exact_match" in line for line in shown)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lora", "--freeze", "generator"], "Choose one"),
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
def test_options_without_effect_are_rejected(folder, tmp_path, more, message):
    failed = run(*options(folder, tmp_path / "out", *more))
    assert failed.exit_code == 1
    assert message in " ".join(failed.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "contains no arguments"),
        ("a: [", "cannot be read as YAML"),
        (None, "cannot be read"),
        ("warmup_step: 3", "there is no training argument 'warmup_step'. Did you mean warmup_steps?"),
        ("output_dir: elsewhere", "there is no training argument 'output_dir'"),
        ("weight_decay: much", "weight_decay is 'much'. Write a number."),
        ("label_smoothing_factor: 0.1", "set the model's label_smoothing"),
    ],
)
def test_invalid_config_is_reported(folder, tmp_path, text, message):
    if text is not None:
        (tmp_path / "more.yaml").write_text(text)
    failed = run(*options(folder, tmp_path / "out", "--config", tmp_path / "more.yaml"))
    assert failed.exit_code == 1
    assert message in " ".join(failed.stderr.split())
    assert not (tmp_path / "out").exists()
