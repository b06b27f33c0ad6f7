"""What a frozen generator computes with the gold answers, cached for each passage.

Notation used for tensor shapes: B questions, K passages per question, T answer tokens, S context tokens, H heads of
all layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ragweave import RagPipeline
from ragweave.training.attention_recording import record_attention
from ragweave.training.collator import RagCollator, RetrievedExample
from ragweave.training.losses import LOSSES, CrossAttention, LossInputs
from ragweave.types import Example

# Contexts per forward pass.
_BATCH = 32


class _Read(NamedTuple):
    """What was computed of a question with one passage."""

    log_probs: Tensor  # log p(y_t | x, z, y_<t), (T,)
    log_sums: Tensor  # log sum_s exp(e_ts), with e the attention scores before the softmax, (H*T,)
    norms: Tensor  # value norms, averaged with the attention within the passage, (H*T,)


class Likelihoods:
    """Log p(y_t | x, z, y_<t) of questions' answers and the attention behind it, cached by question and passage.

    With a frozen generator they are constants. A training step of the retriever then costs a forward pass of its
    encoder only, once the passages are cached.

    Args:
        pipeline: The model and its retriever.
    """

    def __init__(self, pipeline: RagPipeline) -> None:
        self.pipeline = pipeline
        self.collator = RagCollator(pipeline.retriever, causal=pipeline.model.config.generator_is_causal)
        self._cache: dict[tuple[str, int], _Read] = {}

    def loss(self, way: str, examples: Sequence[Example], rows: NDArray[np.int64], scores: Tensor) -> Tensor:
        """The mean of a loss of `ragweave.training.losses`, with its gradient in the scores.

        Args:
            way: The name of the loss.
            examples: The questions with their answers.
            rows: Rows of their passages in the index, (B, K).
            scores: Logits of p(z|x), (B, K).
        """
        missing = [
            RetrievedExample(example, np.array([row]), np.zeros(1, np.float32))
            for example, passages in zip(examples, rows.tolist(), strict=True)
            for row in passages
            if (example.id, row) not in self._cache
        ]
        for start in range(0, len(missing), _BATCH):
            self._compute(missing[start : start + _BATCH])
        losses = [
            self._question_loss(way, [self._cache[example.id, row] for row in passages], logits)
            for example, passages, logits in zip(examples, rows.tolist(), scores, strict=True)
        ]
        return torch.stack(losses).mean()

    def _question_loss(self, way: str, passages: list[_Read], scores: Tensor) -> Tensor:
        log_probs = torch.stack([passage.log_probs for passage in passages])  # (K, T)
        attention = None
        if way == "adist":
            # ADist's softmax over the tokens of all passages needs only the sum of each passage and head. Every
            # answer token becomes a head of its own, whose passages have one token.
            log_probs = log_probs[:, :1]
            attention = CrossAttention(
                torch.stack([passage.log_sums for passage in passages])[None, :, :, None, None],
                torch.stack([passage.norms for passage in passages])[None, :, :, None],
                torch.ones(1, len(passages), 1, dtype=torch.bool),
            )
        scored = torch.ones(1, log_probs.shape[1], dtype=torch.bool)
        return LOSSES[way](
            LossInputs(scores[None], log_probs[None], scored, self.pipeline.formulation, attention)
        )

    @torch.no_grad()
    def _compute(self, examples: Sequence[RetrievedExample]) -> None:
        batch = self.collator(examples)
        model = self.pipeline.model
        with record_attention(model.generator) as record:
            logits = model(**batch, n_docs=1, reduce_loss=False).logits
        log_probs, scored = model.per_passage_log_probs(batch["labels"], logits, 1)
        attention = record.by_passage(1, batch["context_attention_mask"])
        hidden = ~attention.mask[:, 0, None, None]  # (B, 1, 1, S)
        scores = attention.scores[:, 0].float().masked_fill(hidden, float("-inf"))  # (B, H, T, S)
        norms = torch.einsum("bhts,bhs->bht", scores.softmax(-1), attention.value_norms[:, 0].float())
        log_sums = scores.logsumexp(-1)
        for number, (example, counts) in enumerate(zip(examples, scored, strict=True)):
            self._cache[example.example.id, int(example.rows[0])] = _Read(
                log_probs[number, 0, counts].float(),
                log_sums[number][:, counts].flatten(),
                norms[number][:, counts].flatten(),
            )
