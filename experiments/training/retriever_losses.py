"""Compare the effect of Atlas' losses, added to the marginal likelihood, on retrieval. The generator is frozen.

Notation used for tensor shapes: B questions, K passages per question.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from experiments.training.likelihoods import Likelihoods
from experiments.training.work import Work
from rich.console import Console
from transformers import get_linear_schedule_with_warmup

from ragweave import RagPipeline, SearchSettings
from ragweave.matching import has_answer
from ragweave.training.losses import LOSSES, LossInputs
from ragweave.types import Example

WAYS = ("none", "marginal", "emdr2", "pdist", "loop")
"""No training, the marginal likelihood alone, and with a loss of Atlas beside it."""

N_DOCS = 5
EPOCHS = 4
BATCH = 16
LEARNING_RATE = 3e-5
DEPTHS = (1, 5, 20)


def compare_losses(work: Work, seeds: Sequence[int]) -> None:
    """Train the question encoder in each way with each seed, and note where answers are found; unless done."""
    missing = [(way, seed) for seed in seeds for way in WAYS if not record(work.root, way, seed).exists()]
    if not missing:
        return
    pipeline = RagPipeline.from_pretrained(
        work.start, knowledge_base=work.knowledge_base(), search=SearchSettings("dense"), dtype="bfloat16"
    )
    likelihoods = Likelihoods(pipeline)
    encoder = pipeline.model.question_encoder
    before = copy.deepcopy(encoder.state_dict())
    train, dev = work.questions("train"), work.questions("dev")
    for way, seed in missing:
        Console(stderr=True).print(f"retriever loss: {way}, seed {seed}")
        encoder.load_state_dict(before)
        if way != "none":
            _train(pipeline, likelihoods, train, way, seed)
        path = record(work.root, way, seed)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(_found(pipeline, dev)), encoding="utf-8")


def record(root: Path, way: str, seed: int) -> Path:
    """The file with what was found, question by question."""
    return root / "retriever-losses" / f"{way}-{seed}.json"


def _train(
    pipeline: RagPipeline, likelihoods: Likelihoods, examples: list[Example], way: str, seed: int
) -> None:
    torch.manual_seed(seed)
    rng = random.Random(seed)  # noqa: S311
    model, encoder = pipeline.model, pipeline.model.question_encoder
    encoder.train()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    steps = EPOCHS * -(-len(examples) // BATCH)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    for _ in range(EPOCHS):
        order = rng.sample(examples, len(examples))
        for start in range(0, len(order), BATCH):
            own = order[start : start + BATCH]
            questions = [example.question for example in own]
            encoded = pipeline.retriever.question_encoder_tokenizer(
                questions,
                padding=True,
                truncation=True,
                max_length=pipeline.encoder.max_length,
                return_tensors="pt",
            )
            vectors, _ = model.rag.encode_question(encoded["input_ids"], encoded["attention_mask"])
            hits = pipeline.retriever.search(vectors.detach().numpy(), N_DOCS, question_strings=questions)
            scores = model.rag.score_passages(
                vectors, torch.from_numpy(hits.passage_vectors), torch.from_numpy(hits.rows)
            )
            inputs = LossInputs(scores, *likelihoods(own, hits.rows), pipeline.formulation)
            loss = LOSSES["marginal"](inputs)
            if way != "marginal":
                loss = loss + LOSSES[way](inputs)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    encoder.eval()


def _found(pipeline: RagPipeline, examples: list[Example]) -> dict[str, list[float]]:
    """Of every question, whether one of the first passages has the answer in it."""
    hits = pipeline.retrieve([example.question for example in examples], n_docs=max(DEPTHS))
    right = np.array(
        [
            [has_answer(text, example.answers) for text in found["text"]]
            for example, found in zip(examples, hits.docs, strict=True)
        ]
    )
    return {f"answer_recall@{k}": right[:, :k].any(1).astype(float).tolist() for k in DEPTHS}
