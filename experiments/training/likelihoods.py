"""Likelihoods of the gold answers under a frozen generator, cached for each passage.

Notation used for tensor shapes: B questions, K passages per question, T answer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ragweave import RagPipeline
from ragweave.training.collator import RagCollator, RetrievedExample
from ragweave.types import Example

# Contexts per forward pass.
_BATCH = 32


class Likelihoods:
    """Log p(y_t | x, z, y_<t) of questions' answers, cached by question and passage.

    With a frozen generator they are constants. A training step of the retriever then costs a forward pass of its
    encoder only, once the passages are cached.

    Args:
        pipeline: The model and its retriever.
    """

    def __init__(self, pipeline: RagPipeline) -> None:
        self.pipeline = pipeline
        self.collator = RagCollator(pipeline.retriever, causal=pipeline.model.config.generator_is_causal)
        self._cache: dict[tuple[str, int], Tensor] = {}

    def __call__(self, examples: Sequence[Example], rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Look up the likelihoods, and compute those that are missing.

        Args:
            examples: The questions with their answers.
            rows: Rows of their passages in the index, (B, K).

        Returns:
            Token log-probabilities, (B, K, T), and which tokens count, bool, (B, T).
        """
        missing = [
            RetrievedExample(example, np.array([row]), np.zeros(1, np.float32))
            for example, passages in zip(examples, rows.tolist(), strict=True)
            for row in passages
            if (example.id, row) not in self._cache
        ]
        for start in range(0, len(missing), _BATCH):
            self._compute(missing[start : start + _BATCH])
        cached = [
            torch.stack([self._cache[example.id, row] for row in passages])
            for example, passages in zip(examples, rows.tolist(), strict=True)
        ]
        width = max(log_probs.shape[-1] for log_probs in cached)
        scored = torch.zeros(len(cached), width, dtype=torch.bool)
        padded = torch.zeros(len(cached), rows.shape[1], width)
        for question, log_probs in enumerate(cached):
            scored[question, : log_probs.shape[-1]] = True
            padded[question, :, : log_probs.shape[-1]] = log_probs
        return padded, scored

    @torch.no_grad()
    def _compute(self, examples: Sequence[RetrievedExample]) -> None:
        batch = self.collator(examples)
        model = self.pipeline.model
        logits = model(**batch, n_docs=1, reduce_loss=False).logits
        log_probs, scored = model.per_passage_log_probs(batch["labels"], logits, 1)
        for example, row, counts in zip(examples, log_probs[:, 0].float(), scored, strict=True):
            self._cache[example.example.id, int(example.rows[0])] = row[counts]
