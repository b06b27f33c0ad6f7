"""The retriever alone: which passages it learns from, and that it learns."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
import torch
from typer.testing import CliRunner

from ragweave import KnowledgeBase
from ragweave.cli import app
from ragweave.encoders.text_encoder import TextEncoder
from ragweave.errors import ConfigurationError, DataError, TrainingError
from ragweave.training.contrastive import TrainingPair, train_retriever, training_pairs
from ragweave.types import Example
from tests.support.encoders import load_tiny_encoder
from tests.support.pipelines import build_knowledge_base, save_rag_model
from tests.support.training import EXAMPLES

OPTIONS = {
    "per_device_train_batch_size": 2,
    "report_to": [],
    "use_cpu": True,
    "disable_tqdm": True,
    "num_train_epochs": 1,
}


def beginning_with(first):
    """Training that begins with what a function does to the trainer."""

    def around(trainer):
        first(trainer)
        return nullcontext()

    return around


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_encoder_path):
    folder = tmp_path_factory.mktemp("base")
    build_knowledge_base(folder, tiny_encoder_path)
    save_rag_model(folder / "model", tiny_encoder_path)
    return folder


@pytest.fixture(scope="module")
def base(folder):
    return KnowledgeBase.open(folder / "kb")


def test_positives_are_gold_and_negatives_share_words_without_answering(base):
    kenya = training_pairs(base, EXAMPLES, n_negatives=5)[1]
    assert "Nairobi" in kenya.positive
    assert len(kenya.negatives) == 2  # those of the other two capitals
    assert not any("Nairobi" in text for text in kenya.negatives)


def test_without_gold_the_first_passage_with_an_answer_is_taken(base):
    questions = [
        Example("1", "What is the capital on the ocean?", ("Nairobi",)),
        Example("2", "What is the capital of Atlantis?", ("Poseidonis",)),
    ]
    (pair,) = training_pairs(base, questions)
    assert pair.question == questions[0].question
    assert "Nairobi" in pair.positive
    with pytest.raises(DataError, match="No passage answers"):
        training_pairs(base, questions[1:])


def test_a_gold_passage_without_the_answer_is_a_positive(base):
    (pair,) = training_pairs(base, [Example("1", "Is Chile long?", ("yes",), ("chile.txt",))])
    assert "Santiago" in pair.positive


def test_gold_passages_are_enough_without_answers(base):
    (pair,) = training_pairs(base, [Example("1", "Which capital is it?", (), ("kenya.txt",))], n_negatives=5)
    assert "Nairobi" in pair.positive
    assert len(pair.negatives) == 2
    assert pair.positive not in pair.negatives


def test_a_copy_of_the_positive_is_not_a_negative(tmp_path, tiny_encoder_path):
    for name, text in (("a", "Lima is in Peru."), ("b", "Lima is in Peru."), ("c", "Lima is a bean.")):
        (tmp_path / f"{name}.txt").write_text(text)
    base = KnowledgeBase.build(
        [tmp_path / f"{name}.txt" for name in "abc"],
        tmp_path / "kb",
        encoder=load_tiny_encoder(tiny_encoder_path),
    )
    (pair,) = training_pairs(base, [Example("1", "Where is Lima?", (), ("a.txt",))], n_negatives=5)
    assert ["bean" in text for text in pair.negatives] == [True]


def test_missing_negatives_are_filled(tmp_path, tiny_encoder_path):
    seen = {}

    def look(trainer):
        seen.update(trainer.train_dataset.to_dict())

    pairs = [
        TrainingPair("Where is Lima?", "Peru", ("Chile", "Kenya")),
        TrainingPair("Where is Nairobi?", "Kenya", ("Peru",)),
        TrainingPair("Where is Santiago?", "Chile"),
    ]
    train_retriever(
        load_tiny_encoder(tiny_encoder_path), pairs, tmp_path, around=beginning_with(look), **OPTIONS
    )
    negatives = [*zip(seen["negative_0"], seen["negative_1"], strict=True)]
    assert negatives[:2] == [("Chile", "Kenya"), ("Peru", "Peru")]
    assert set(negatives[2]) <= {"Kenya", "Peru"}
    assert "negative_2" not in seen


def margin(encoder, pair):
    question, positive, negative = torch.from_numpy(
        encoder.encode([pair.question, pair.positive, pair.negatives[0]])
    )
    return float(question @ positive - question @ negative)


def test_the_encoder_learns_to_prefer_the_positive(tmp_path, tiny_encoder_path, base):
    encoder = load_tiny_encoder(tiny_encoder_path)
    pairs = training_pairs(base, EXAMPLES)
    before = [margin(encoder, pair) for pair in pairs]
    train_retriever(encoder, pairs, tmp_path, **{**OPTIONS, "num_train_epochs": 20, "learning_rate": 2e-3})
    after = [margin(encoder, pair) for pair in pairs]
    assert sum(after) > sum(before)
    assert sum(value > 0 for value in after) >= 3


def test_a_loss_that_is_not_finite_leaves_the_encoder_and_writes_nothing(tmp_path, tiny_encoder_path):
    encoder = load_tiny_encoder(tiny_encoder_path)
    pairs = [TrainingPair("Where is Lima?", "Peru"), TrainingPair("Where is Nairobi?", "Kenya")]

    def spoil(trainer):
        with torch.no_grad():
            next(trainer.model.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingError, match="The loss of step 1 is nan"):
        train_retriever(encoder, pairs, tmp_path, around=beginning_with(spoil), save_steps=1, **OPTIONS)
    assert not list(tmp_path.glob("checkpoint-*"))
    assert all(weight.isfinite().all() for weight in encoder.model.parameters())


def test_a_run_resumes_from_its_last_complete_checkpoint_with_the_same_data(tmp_path, tiny_encoder_path):
    encoder = load_tiny_encoder(tiny_encoder_path)
    pairs = [TrainingPair("Where is Lima?", "Peru"), TrainingPair("Where is Nairobi?", "Kenya")]
    saving = {**OPTIONS, "save_strategy": "epoch"}
    train_retriever(encoder, pairs, tmp_path, **saving)
    (tmp_path / "checkpoint-7").mkdir()  # killed while it was written
    (tmp_path / "checkpoint-7" / "model.safetensors").write_bytes(b"half")
    train_retriever(encoder, pairs, tmp_path, resume=True, **{**saving, "num_train_epochs": 2})
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    with pytest.raises(TrainingError, match=r"2 questions then, 1 now"):
        train_retriever(encoder, pairs[:1], tmp_path, resume=True, **saving)


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path, tiny_encoder_path):
    encoder = load_tiny_encoder(tiny_encoder_path)
    pairs = [TrainingPair("Where is Lima?", "Peru"), TrainingPair("Where is Nairobi?", "Kenya")]

    class KilledError(Exception):
        pass

    def kill(trainer):
        def step(*args, **kwargs):
            raise KilledError

        trainer.training_step = step

    with pytest.raises(KilledError):
        train_retriever(encoder, pairs, tmp_path, around=beginning_with(kill), **OPTIONS)
    train_retriever(encoder, pairs, tmp_path, resume=True, save_strategy="epoch", **OPTIONS)
    assert (tmp_path / "checkpoint-1").is_dir()


def test_several_processes_are_rejected(tmp_path, tiny_encoder_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match=r"one of 2: .* without torchrun"):
        train_retriever(
            load_tiny_encoder(tiny_encoder_path), [TrainingPair("Where is Lima?", "Peru")], tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_invalid_arguments_are_rejected(tmp_path, tiny_encoder_path):
    encoder = load_tiny_encoder(tiny_encoder_path)
    pairs = [TrainingPair("Where is Lima?", "Peru")]
    with pytest.raises(TrainingError, match="no run in"):
        train_retriever(encoder, pairs, tmp_path / "run", resume=True)
    encoder.pooling = "pooler"
    with pytest.raises(ConfigurationError, match="end-to-end"):
        train_retriever(encoder, pairs, tmp_path / "run")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_trained_retriever_answers_from_its_knowledge_base(tmp_path, folder):
    data = tmp_path / "data.jsonl"
    rows = [
        {"question": example.question, "answers": example.answers, "passage": example.gold_passages[0]}
        for example in EXAMPLES
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    options = ["--kb", folder / "kb", "--data", data, "--model", folder / "model", "--output", out]
    done = run("train", "retriever", *options, "--batch-size", 2, "--epochs", 2)
    assert done.exit_code == 0, done.output
    assert "trained on 4 of 4 questions" in done.stdout
    trained = TextEncoder.from_pretrained(out / "document-encoder")
    before = KnowledgeBase.open(folder / "kb")
    after = KnowledgeBase.open(out / "knowledge-base", encoder=trained)
    assert after.manifest.encoder.fingerprint != before.manifest.encoder.fingerprint
    answered = run(
        "ask", "--kb", out / "knowledge-base", "--model", out, "--json", "--max-new-tokens", 3, "Where?"
    )
    assert answered.exit_code == 0, answered.output
    refused = run("train", "retriever", *options)
    assert refused.exit_code != 0
    assert "is not empty" in refused.output
    resumed = run("train", "retriever", *options, "--batch-size", 2, "--epochs", 3, "--resume")
    assert resumed.exit_code == 0, resumed.output
