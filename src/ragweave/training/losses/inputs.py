"""What a retriever loss is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ragweave.errors import ConfigurationError, ShapeError
from ragweave.modeling.arguments import check_scores
from ragweave.training.losses.attention import CrossAttention

Formulation = Literal["sequence", "token"]


@dataclass(frozen=True)
class LossInputs:
    """One batch, as the retriever scored it and the generator read it.

    Attributes:
        doc_scores: Scaled passage scores, (B, K): logits of p(z|x), -inf where there is no passage.
        token_log_probs: log p(y_t | x, z, y_<t), (B, K, T), as `ragweave.marginalization.target_log_probs`
            gives them; may be anything where there is no passage or the token does not count.
        scored: Which target tokens count, bool, (B, T).
        formulation: How the model sums over passages: "sequence" or "token".
        attention: How the generator looked at its contexts, which attention distillation needs and no other loss.

    Raises:
        ConfigurationError: ``formulation`` is neither word.
        ShapeError: Shapes disagree, or a question has no passage or no target token that counts.
    """

    doc_scores: Tensor
    token_log_probs: Tensor
    scored: Tensor
    formulation: Formulation = "sequence"
    attention: CrossAttention | None = None

    def __post_init__(self) -> None:
        if self.formulation not in ("sequence", "token"):
            raise ConfigurationError(f"formulation is {self.formulation!r}; choose 'sequence' or 'token'.")
        if self.token_log_probs.dim() != 3:
            raise ShapeError(
                f"token_log_probs has shape {tuple(self.token_log_probs.shape)}; expected (B, K, T)."
            )
        b, k, t = self.token_log_probs.shape
        for name, found, expected in (
            ("doc_scores", self.doc_scores, (b, k)),
            ("scored", self.scored, (b, t)),
        ):
            if tuple(found.shape) != expected:
                raise ShapeError(
                    f"{name} has shape {tuple(found.shape)}, but token_log_probs has shape {(b, k, t)}: "
                    f"expected {expected}."
                )
        check_scores(self.doc_scores)
        silent = (~self.scored.any(-1)).nonzero()
        if len(silent):
            raise ShapeError(
                f"scored has no token of question {int(silent[0])}; expected one target token at least."
            )
        if self.attention is not None:
            self.attention.check(self.present, self.scored)

    @property
    def present(self) -> Tensor:
        """Which passages there are, bool, (B, K)."""
        return ~self.doc_scores.isneginf()

    @property
    def counted_log_probs(self) -> Tensor:
        """``token_log_probs`` with 0 wherever they do not count, (B, K, T), in float32 or better."""
        counted = self.present[..., None] & self.scored[:, None]
        dtype = torch.promote_types(self.token_log_probs.dtype, torch.float32)
        return self.token_log_probs.to(dtype).masked_fill(~counted, 0.0)

    @property
    def answer_log_probs(self) -> Tensor:
        """Log p(y|x,z) = sum_t log p(y_t | x, z, y_<t), (B, K); 0 where there is no passage."""
        return self.counted_log_probs.sum(-1)
