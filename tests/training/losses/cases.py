"""Random batches for the retriever losses, some passages missing and some targets padded, in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from ragweave.training.losses import CrossAttention, LossInputs

LOST = float("-inf")
HEADS, CONTEXT = 4, 5


def batch(
    seed: int, b: int = 3, k: int = 4, t: int = 5, *, formulation: str = "sequence", spread: float = 1.0
) -> LossInputs:
    """Garbage stands wherever nothing may look: under missing passages, padded targets, masked tokens."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def coin(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) < 0.7

    present, scored, mask = coin(b, k), coin(b, t), coin(b, k, CONTEXT)
    present[torch.arange(b), torch.randint(0, k, (b,), generator=generator)] = True
    scored[:, 0] = True
    mask[..., 1] = True
    unread = ~(mask & present[..., None])
    counted = present[..., None] & scored[:, None]
    log_probs = -(spread * normal(b, k, t)).abs()
    return LossInputs(
        doc_scores=(2 * spread * normal(b, k)).masked_fill(~present, LOST),
        token_log_probs=log_probs.masked_fill(~counted, math.nan),
        scored=scored,
        formulation=formulation,  # type: ignore[arg-type]
        attention=CrossAttention(
            scores=(spread * normal(b, k, HEADS, t, CONTEXT)).masked_fill(unread[:, :, None, None], math.nan),
            value_norms=normal(b, k, HEADS, CONTEXT).abs().masked_fill(unread[:, :, None], math.nan),
            mask=mask,
        ),
    )


@st.composite
def batches(draw: st.DrawFn) -> LossInputs:
    sizes = [draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 4))]
    formulation = draw(st.sampled_from(["sequence", "token"]))
    spread = draw(st.sampled_from([1e-3, 1.0, 30.0, 1000.0]))
    return batch(draw(st.integers(0, 10_000)), *sizes, formulation=formulation, spread=spread)


def with_scores(inputs: LossInputs, doc_scores: Tensor) -> LossInputs:
    return replace(inputs, doc_scores=doc_scores)


def permuted(inputs: LossInputs, order: Tensor) -> LossInputs:
    """The same batch, its passages in another order."""
    attention = inputs.attention
    assert attention is not None
    return replace(
        inputs,
        doc_scores=inputs.doc_scores[:, order],
        token_log_probs=inputs.token_log_probs[:, order],
        attention=CrossAttention(
            attention.scores[:, order], attention.value_norms[:, order], attention.mask[:, order]
        ),
    )


def alone(inputs: LossInputs, question: int, passages: list[int]) -> LossInputs:
    """One question of a batch with some of its passages."""
    attention = inputs.attention
    assert attention is not None
    return replace(
        inputs,
        doc_scores=inputs.doc_scores[question, passages][None],
        token_log_probs=inputs.token_log_probs[question, passages][None],
        scored=inputs.scored[question][None],
        attention=CrossAttention(
            attention.scores[question, passages][None],
            attention.value_norms[question, passages][None],
            attention.mask[question, passages][None],
        ),
    )


def converted(inputs: LossInputs, dtype: torch.dtype) -> LossInputs:
    """The same batch in another precision."""
    attention = inputs.attention
    assert attention is not None
    return replace(
        inputs,
        doc_scores=inputs.doc_scores.to(dtype),
        token_log_probs=inputs.token_log_probs.to(dtype),
        attention=CrossAttention(attention.scores.to(dtype), attention.value_norms.to(dtype), attention.mask),
    )
