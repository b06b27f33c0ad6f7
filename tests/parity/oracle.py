"""Pairs of equal models, transformers' and ours, and random inputs on which the oracle is right.

Where it is wrong (see docs/differences.md) there is nothing to compare: labels have three real tokens at
least, none of them -100; contexts of RagSequence's ``generate`` have no padding, since the oracle drops their
mask, and its answers have two scored tokens at least, since it forgets the prior on shorter ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers as tf
from torch import Tensor

import ragweave
from tests.support import models

ORACLES = {"token": tf.RagTokenForGeneration, "sequence": tf.RagSequenceForGeneration}
SCARCE_TOKEN = models.VOCABULARY - 1


@cache
def _pair(formulation: str, generator: str) -> tuple[Any, Any]:
    networks = (models.question_encoder_config(), models.generator_config(generator))
    special = {
        name: getattr(networks[1], name, None)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    }
    if special["bos_token_id"] is None:
        # The oracle's RagSequence reads generator.bos_token_id, which T5 lacks, unless RagConfig has one.
        special["bos_token_id"] = SCARCE_TOKEN
    build = {"n_docs": 3, **special}
    theirs = ORACLES[formulation](tf.RagConfig.from_question_encoder_generator_configs(*networks, **build))
    own_config = ragweave.RagConfig.from_question_encoder_generator_configs(*networks, **build)
    return theirs.eval(), models.CLASSES[formulation](own_config).eval()


def pair(
    formulation: str, generator: str, seed: int, *, n_docs: int = 3, label_smoothing: float = 0.0
) -> tuple[Any, Any]:
    """The two models with equal new weights."""
    theirs, ours = _pair(formulation, generator)
    models.randomise(theirs, seed)
    found = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert all("embed" in name or "lm_head" in name for name in found.missing_keys)
    for model in (theirs, ours):
        model.config.label_smoothing = label_smoothing
        model.config.n_docs = n_docs  # the oracle's RagSequence scores candidates with this one
        model.zero_grad()
    return theirs, ours


@dataclass
class Case:
    """Random sizes, contexts, scores and labels."""

    generator: str
    seed: int
    padded: bool = True
    arguments: dict[str, Tensor] = field(init=False)
    labels: Tensor = field(init=False)
    n_docs: int = field(init=False)

    def __post_init__(self) -> None:
        source = torch.Generator().manual_seed(self.seed)

        def pick(low: int, high: int) -> int:
            return int(torch.randint(low, high + 1, (1,), generator=source))

        pad = models.generator_config(self.generator).pad_token_id
        n_questions, self.n_docs, length = pick(1, 3), pick(1, 4), pick(3, 12)
        padding = "right" if self.padded and pick(0, 3) else None
        self.arguments = models.contexts(
            n_questions, self.n_docs, length, seed=self.seed, padding=padding, vocab_size=models.VOCABULARY
        )
        self.arguments["context_input_ids"].masked_fill_(self.arguments["context_attention_mask"] == 0, pad)
        self.labels = models.words(n_questions, pick(3, 7), seed=self.seed)
        for row in self.labels:
            row[pick(3, len(row)) :] = pad
        self.smoothing = (0.0, 0.0, 0.1, 0.3)[pick(0, 3)]

    def scores_with_gradient(self) -> dict[str, Tensor]:
        return {**self.arguments, "doc_scores": self.arguments["doc_scores"].clone().requires_grad_()}


def gradients(model: Any) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def gradient_of(scores: Tensor) -> Tensor:
    """The scores' gradient; of a single passage's score, which changes nothing, there may be none."""
    return torch.zeros_like(scores) if scores.grad is None else scores.grad
