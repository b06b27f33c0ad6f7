"""Shared code of the retriever losses: inputs, options, and distillation from the generator.

Notation used for tensor shapes
    B questions, K passages per question, T target tokens, S context tokens, H heads of all layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ragweave.errors import ConfigurationError, ShapeError
from ragweave.marginalization import passage_log_probs
from ragweave.modeling.parts import check_scores
from ragweave.types import Formulation

Reduction = Literal["mean", "none"]


@dataclass(frozen=True)
class CrossAttention:
    """Attention of a generator to contexts of one passage each, for attention distillation.

    For seq2seq generators it is the cross-attention. For causal ones it is the attention from the answer's positions
    to the prompt's, without the last one, which is the answer's first position. The heads of all layers are
    concatenated.
    """

    # Attention scores before the softmax, or else the logarithms of the attention weights (see
    # `ragweave.training.losses.adist`), (B, K, H, T, S).
    scores: Tensor
    value_norms: Tensor  # euclidean norms of the value vectors, (B, K, H, S)
    mask: Tensor  # which context tokens are present, bool, (B, K, S)

    def check(self, present: Tensor, scored: Tensor) -> None:
        """Raise `ShapeError` unless shapes fit those of `LossInputs`, and every present passage has a token."""
        if self.scores.dim() != 5:
            raise _shape_error("attention.scores", self.scores, "(B, K, H, T, S)")
        heads, tokens = self.scores.shape[2], self.scores.shape[4]
        _check_shape("attention.scores", self.scores, *present.shape, heads, scored.shape[1], tokens)
        _check_shape("attention.value_norms", self.value_norms, *present.shape, heads, tokens)
        _check_shape("attention.mask", self.mask, *present.shape, tokens)
        empty = (present & ~self.mask.any(-1)).nonzero()
        if len(empty):
            question, passage = empty[0].tolist()
            raise ShapeError(
                f"attention.mask excludes all tokens of passage {passage} of question {question}. Include one, or "
                "set the passage's score to -inf if it is missing."
            )


@dataclass(frozen=True)
class LossInputs:
    """The passage scores of one batch, and the generator's outputs for the passages.

    Raises `ConfigurationError` if the formulation is unknown, and `ShapeError` if shapes disagree, or a question has
    no passage or no target token that counts.
    """

    doc_scores: Tensor  # scaled passage scores, the logits of p(z|x), (B, K); -inf for missing passages
    # Log p(y_t | x, z, y_<t), see `ragweave.marginalization.target_log_probs`, (B, K, T); ignored for missing
    # passages and for tokens that do not count.
    token_log_probs: Tensor
    scored: Tensor  # which target tokens count, bool, (B, T)
    formulation: Formulation = "sequence"  # how the model sums over passages
    # The generator's attention to its contexts; only attention distillation needs it.
    attention: CrossAttention | None = None

    def __post_init__(self) -> None:
        if self.formulation not in get_args(Formulation):
            raise ConfigurationError(f"formulation is {self.formulation!r}; choose 'sequence' or 'token'.")
        if self.token_log_probs.dim() != 3:
            raise _shape_error("token_log_probs", self.token_log_probs, "(B, K, T)")
        b, k, t = self.token_log_probs.shape
        _check_shape("doc_scores", self.doc_scores, b, k)
        _check_shape("scored", self.scored, b, t)
        check_scores(self.doc_scores)
        unscored = (~self.scored.any(-1)).nonzero()
        if len(unscored):
            raise ShapeError(
                f"scored has no token of question {int(unscored[0])}; expected at least one target token."
            )
        if self.attention is not None:
            self.attention.check(self.present, self.scored)

    @property
    def present(self) -> Tensor:
        """Which passages are present, bool, (B, K)."""
        return ~self.doc_scores.isneginf()

    @property
    def counted_log_probs(self) -> Tensor:
        """``token_log_probs`` in float32 or better, and 0 wherever they do not count, (B, K, T)."""
        counted = self.present[..., None] & self.scored[:, None]
        return _float32_or_better(self.token_log_probs).masked_fill(~counted, 0.0)

    @property
    def answer_log_probs(self) -> Tensor:
        """Log p(y|x,z) = sum_t log p(y_t | x, z, y_<t), (B, K); 0 for missing passages."""
        return self.counted_log_probs.sum(-1)


class RetrieverLoss(Protocol):
    """A loss that trains the retriever."""

    def __call__(
        self, inputs: LossInputs, *, temperature: float = 1.0, reduction: Reduction = "mean"
    ) -> Tensor:
        """Compute the losses of a batch, (B,), or their mean, (), with a temperature for p(z|x).

        The distillation losses also take ``target_temperature``, that of the target distribution p.
        """
        ...


def tempered(scores: Tensor, temperature: float, name: str = "temperature") -> Tensor:
    """Divide scores by a positive temperature, in float32 or better; above 1, it flattens their softmax."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ConfigurationError(f"{name} is {temperature!r}; give a number above 0.")
    return _float32_or_better(scores) / temperature


def reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    """The losses of B questions, (B,), or their mean, (). Raises `ConfigurationError` if the reduction is unknown."""
    if reduction not in get_args(Reduction):
        raise ConfigurationError(f"reduction is {reduction!r}; choose 'mean' or 'none'.")
    return losses.mean() if reduction == "mean" else losses


def distil(
    inputs: LossInputs, evidence: Tensor, temperature: float, target_temperature: float, reduction: Reduction
) -> Tensor:
    """KL(p || p(z|x)) = sum_k p_k (log p_k - log p(z_k|x)), with p = softmax_K(evidence / target_temperature).

    No gradient passes through p. The gradient in the scores is (p(z|x) - p) / temperature. The evidence is the
    generator's preference for each passage, (B, K), any finite value for missing passages.
    """
    missing = ~inputs.present
    logits = tempered(evidence.detach(), target_temperature, "target_temperature")
    target = torch.softmax(logits.masked_fill(missing, float("-inf")), dim=-1)
    # 0 times -inf is NaN: for a missing passage both factors become 0.
    log_probs = passage_log_probs(tempered(inputs.doc_scores, temperature)).masked_fill(missing, 0.0)
    return reduced(functional.kl_div(log_probs, target, reduction="none").sum(-1), reduction)


def _check_shape(name: str, tensor: Tensor, *expected: int) -> None:
    if tuple(tensor.shape) != expected:
        raise _shape_error(name, tensor, expected)


def _shape_error(name: str, tensor: Tensor, expected: object) -> ShapeError:
    return ShapeError(f"{name} has shape {tuple(tensor.shape)}; expected {expected}.")


def _float32_or_better(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
