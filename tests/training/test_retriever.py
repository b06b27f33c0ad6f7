"""The retriever alone: which passages it learns from, and that it learns."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from ragweave import KnowledgeBase
from ragweave.cli import app
from ragweave.encoding import TextEncoder
from ragweave.errors import ConfigurationError, DataError, TrainingError
from ragweave.evaluation.data import Example
from ragweave.training.contrastive import train_retriever
from ragweave.training.pairs import TrainingPair, training_pairs
from tests.support.encoders import load_tiny_encoder
from tests.support.pipelines import build_knowledge_base, save_rag_model
from tests.support.training import EXAMPLES


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
    asked = [
        Example("1", "What is the capital on the ocean?", ("Nairobi",)),
        Example("2", "What is the capital of Atlantis?", ("Poseidonis",)),
    ]
    (pair,) = training_pairs(base, asked)
    assert pair.question == asked[0].question
    assert "Nairobi" in pair.positive
    with pytest.raises(DataError, match="No passage was found"):
        training_pairs(base, asked[1:])


def test_a_gold_passage_is_taken_though_the_answer_is_not_in_it(base):
    (pair,) = training_pairs(base, [Example("1", "Is Chile long?", ("yes",), ("chile.txt",))])
    assert "Santiago" in pair.positive


def margin(encoder, pair):
    question, positive, negative = torch.from_numpy(
        encoder.encode([pair.question, pair.positive, pair.negatives[0]])
    )
    return float(question @ positive - question @ negative)


def test_the_encoder_learns_to_prefer_the_positive(tmp_path, tiny_encoder_path, base):
    encoder = load_tiny_encoder(tiny_encoder_path)
    pairs = training_pairs(base, EXAMPLES)
    before = [margin(encoder, pair) for pair in pairs]
    options = {"per_device_train_batch_size": 2, "report_to": [], "use_cpu": True, "disable_tqdm": True}
    train_retriever(encoder, pairs, tmp_path, num_train_epochs=20, learning_rate=2e-3, **options)
    after = [margin(encoder, pair) for pair in pairs]
    assert sum(after) > sum(before)
    assert sum(own > 0 for own in after) >= 3
    assert not (tmp_path / ".start").exists()


def test_what_cannot_be_trained_is_said(tmp_path, tiny_encoder_path):
    encoder = load_tiny_encoder(tiny_encoder_path)
    pairs = [TrainingPair("Where is Lima?", "Peru")]
    with pytest.raises(TrainingError, match="no checkpoint"):
        train_retriever(encoder, pairs, tmp_path / "run", resume=True)
    encoder.pooling = "pooler"
    with pytest.raises(ConfigurationError, match="end-to-end"):
        train_retriever(encoder, pairs, tmp_path / "run")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_what_was_trained_answers_from_its_own_knowledge_base(tmp_path, folder):
    data = tmp_path / "data.jsonl"
    rows = [
        {"question": own.question, "answers": own.answers, "passage": own.gold_passages[0]}
        for own in EXAMPLES
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
    asked = run(
        "ask", "--kb", out / "knowledge-base", "--model", out, "--json", "--max-new-tokens", 3, "Where?"
    )
    assert asked.exit_code == 0, asked.output
    refused = run("train", "retriever", *options)
    assert refused.exit_code != 0
    assert "is not empty" in refused.output
    resumed = run("train", "retriever", *options, "--batch-size", 2, "--epochs", 3, "--resume")
    assert resumed.exit_code == 0, resumed.output
