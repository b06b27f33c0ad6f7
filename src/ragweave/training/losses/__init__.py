"""Losses that teach a retriever from what the generator does with its passages, by name.

Beside the marginal likelihood, which trains both, those of Atlas (Izacard et al. 2022, arXiv 2208.03299, section
2.2). These stop the gradient at the generator: where it shall learn too, add a loss of its own, such as the
marginal likelihood with detached scores.

Notation used for tensor shapes
    B questions, K passages per question, T target tokens, H heads of all layers, S context tokens.

In all of them p(z|x) = softmax_K(doc_scores / temperature). A ``temperature`` other than 1 trains another
distribution than the one a model answers with, unless its scores are scaled alike.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ragweave.training.losses.adist import adist, passage_attention
from ragweave.training.losses.attention import CrossAttention
from ragweave.training.losses.emdr2 import emdr2
from ragweave.training.losses.inputs import Formulation, LossInputs
from ragweave.training.losses.loop import leave_one_out_log_likelihood, loop
from ragweave.training.losses.marginal import marginal
from ragweave.training.losses.options import Reduction
from ragweave.training.losses.pdist import pdist

__all__ = [
    "LOSSES",
    "CrossAttention",
    "Formulation",
    "LossInputs",
    "Reduction",
    "RetrieverLoss",
    "adist",
    "emdr2",
    "leave_one_out_log_likelihood",
    "loop",
    "marginal",
    "passage_attention",
    "pdist",
]


class RetrieverLoss(Protocol):
    """A loss of this package. Those that distil take a ``target_temperature`` too, 1 where left out."""

    def __call__(
        self, inputs: LossInputs, *, temperature: float = 1.0, reduction: Reduction = "mean"
    ) -> Tensor:
        """Compute the loss of a batch, () or (B,)."""
        ...


LOSSES: dict[str, RetrieverLoss] = {
    "marginal": marginal,
    "emdr2": emdr2,
    "pdist": pdist,
    "loop": loop,
    "adist": adist,
}
