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

_AT_ONCE = 32
"""Contexts that are read together."""


class Likelihoods:
    """Log p(y_t | x, z, y_<t) of questions' answers, remembered by question and passage.

    With the generator frozen they are constants, so that a step of training the retriever costs a pass of its encoder
    alone once the passages have been seen.

    Args:
        pipeline: The model and its retriever.
    """

    def __init__(self, pipeline: RagPipeline) -> None:
        self.pipeline = pipeline
        self.collator = RagCollator(pipeline.retriever, causal=pipeline.model.config.generator_is_causal)
        self._known: dict[tuple[str, int], Tensor] = {}

    def __call__(self, examples: Sequence[Example], rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Look up, and compute what is not known yet.

        Args:
            examples: The questions with their answers.
            rows: Rows of their passages in the index, (B, K).

        Returns:
            Token log-probabilities, (B, K, T), and which of the tokens there are, bool, (B, T).
        """
        missing = [
            RetrievedExample(example, np.array([row]), np.zeros(1, np.float32))
            for example, own in zip(examples, rows.tolist(), strict=True)
            for row in own
            if (example.id, row) not in self._known
        ]
        for start in range(0, len(missing), _AT_ONCE):
            self._compute(missing[start : start + _AT_ONCE])
        own = [
            torch.stack([self._known[example.id, row] for row in passages])
            for example, passages in zip(examples, rows.tolist(), strict=True)
        ]
        width = max(one.shape[-1] for one in own)
        scored = torch.zeros(len(own), width, dtype=torch.bool)
        values = torch.zeros(len(own), rows.shape[1], width)
        for place, one in enumerate(own):
            scored[place, : one.shape[-1]] = True
            values[place, :, : one.shape[-1]] = one
        return values, scored

    @torch.no_grad()
    def _compute(self, examples: Sequence[RetrievedExample]) -> None:
        batch = self.collator(examples)
        model = self.pipeline.model
        logits = model(**batch, n_docs=1, reduce_loss=False).logits
        values, scored = model.per_passage_log_probs(batch["labels"], logits, 1)
        for example, own, there in zip(examples, values[:, 0].float(), scored, strict=True):
            self._known[example.example.id, int(example.rows[0])] = own[there]
