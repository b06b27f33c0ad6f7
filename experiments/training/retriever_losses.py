"""Compare the effect of Atlas' losses, added to the marginal likelihood, on the retriever. The generator is frozen.

Notation used for tensor shapes: B questions, K passages per question.
"""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Sequence

import numpy as np
import torch
from experiments.training.likelihoods import Likelihoods
from experiments.training.work import Work, evaluate, run_folder
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from transformers import get_linear_schedule_with_warmup

from ragweave import RagPipeline, SearchSettings
from ragweave.matching import has_answer
from ragweave.types import Example

BEFORE = "losses-before"
"""The name of the run without training."""

WAYS = {
    "losses-retrieved": ("marginal",),
    "losses-marginal": ("marginal",),
    "losses-emdr2": ("marginal", "emdr2"),
    "losses-pdist": ("marginal", "pdist"),
    "losses-loop": ("marginal", "loop"),
    "losses-adist": ("marginal", "adist"),
}
"""The losses that are added up in each run. The first one has no hard negatives."""

N_RETRIEVED = 5
N_NEGATIVES = 3
LOSS_QUESTIONS = 640
EPOCHS = 3
BATCH = 16
LEARNING_RATE = 3e-5


def compare_losses(work: Work, seeds: Sequence[int], chosen: Sequence[str] = ()) -> None:
    """Train the question encoder in each way with each seed, and evaluate it; finished runs are not repeated.

    Args:
        work: The folder and the data.
        seeds: The seeds.
        chosen: The names of runs; all if empty.
    """
    runs = [(BEFORE, seeds[0]), *((name, seed) for seed in seeds for name in WAYS)]
    missing = [
        (name, seed)
        for name, seed in runs
        if (not chosen or name in chosen) and not run_folder(work, name, seed).metrics.exists()
    ]
    if not missing:
        return
    pipeline = RagPipeline.from_pretrained(
        work.start,
        knowledge_base=work.knowledge_base(),
        search=SearchSettings("dense"),
        dtype="bfloat16",
        passage_cache="4GB",
    )
    encoder = pipeline.model.question_encoder
    before = copy.deepcopy(encoder.state_dict())
    questions = work.train_questions()
    examples = random.Random(0).sample(questions, min(LOSS_QUESTIONS, len(questions)))  # noqa: S311
    training = _Training(pipeline, examples, _hard_negatives(work, examples))
    for name, seed in missing:
        Console(stderr=True).print(f"{name}, seed {seed}")
        folder = run_folder(work, name, seed)
        shutil.rmtree(folder.root, ignore_errors=True)
        encoder.load_state_dict(before)
        if name in WAYS:
            training.run(name, seed)
        evaluate(work, pipeline, folder)


def _hard_negatives(work: Work, examples: Sequence[Example]) -> dict[str, NDArray[np.int64]]:
    """For each question the rows of the best BM25 results without a gold answer."""
    base = work.knowledge_base()
    retriever = base.retriever(SearchSettings("bm25"))
    vectors = np.zeros((len(examples), base.manifest.dimension), np.float32)  # words need no encoder
    hits = retriever.retrieve([example.question for example in examples], 20, vectors=vectors)
    return {
        example.id: np.array(
            [
                row
                for row, text in zip(rows, found["text"], strict=True)
                if row >= 0 and not has_answer(text, example.answers)
            ],
            np.int64,
        )
        for example, rows, found in zip(examples, hits.rows, hits.docs, strict=True)
    }


class _Training:
    """Trains the question encoder; what the generator computes is kept for the next run."""

    def __init__(
        self, pipeline: RagPipeline, examples: list[Example], negatives: dict[str, NDArray[np.int64]]
    ) -> None:
        self.pipeline = pipeline
        self.examples = examples
        self.negatives = negatives
        self.likelihoods = Likelihoods(pipeline)

    def run(self, name: str, seed: int) -> None:
        torch.manual_seed(seed)
        rng = random.Random(seed)  # noqa: S311
        encoder = self.pipeline.model.question_encoder
        encoder.train()
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
        steps = EPOCHS * -(-len(self.examples) // BATCH)
        schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
        for number in range(EPOCHS):
            order = rng.sample(self.examples, len(self.examples))
            title = f"epoch {number + 1} of {EPOCHS}"
            for start in track(range(0, len(order), BATCH), title, console=Console(stderr=True)):
                self._loss(name, order[start : start + BATCH]).backward()
                torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        encoder.eval()

    def _loss(self, name: str, examples: list[Example]) -> torch.Tensor:
        rag, retriever = self.pipeline.model.rag, self.pipeline.retriever
        batch = self.likelihoods.collator(examples)
        vectors, _ = rag.encode_question(batch["input_ids"], batch["attention_mask"])
        k = N_RETRIEVED + N_NEGATIVES
        hits = retriever.search(vectors.detach().numpy(), k, question_strings=batch["question_strings"])
        rows = hits.rows
        if name != "losses-retrieved":
            rows = np.stack(
                [
                    _with_negatives(passages, self.negatives[example.id])
                    for example, passages in zip(examples, rows, strict=True)
                ]
            )
        passage_vectors = retriever.index.hits_for_rows(rows, k).vectors
        scores = rag.score_passages(vectors, torch.from_numpy(passage_vectors), torch.from_numpy(rows))
        losses = [self.likelihoods.loss(loss, examples, rows, scores) for loss in WAYS[name]]
        return torch.stack(losses).sum()


def _with_negatives(retrieved: NDArray[np.int64], negatives: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first retrieved passages and the first other negatives, or more retrieved ones if there are too few."""
    first, rest = retrieved[:N_RETRIEVED], retrieved[N_RETRIEVED:]
    others = dict.fromkeys([*negatives[~np.isin(negatives, first)], *rest])
    return np.array([*first, *others], np.int64)[: len(retrieved)]
