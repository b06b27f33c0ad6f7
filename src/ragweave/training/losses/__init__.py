"""Losses that train a retriever on feedback from the generator, by name.

`marginal` is RAG's own loss and trains both. The others are those of Atlas (Izacard et al. 2022, arXiv 2208.03299,
section 2.2). They stop the gradient at the generator: add a loss for it, such as `marginal` with detached scores.

Their arguments are those of `RetrieverLoss`. In all of them p(z|x) = softmax_K(doc_scores / temperature). With a
``temperature`` other than 1 they train a distribution other than the one the model answers with, unless its
scores are scaled as well.
"""

from __future__ import annotations

from ragweave.training.losses.adist import adist, passage_attention
from ragweave.training.losses.emdr2 import emdr2
from ragweave.training.losses.loop import leave_one_out_log_likelihood, loop
from ragweave.training.losses.marginal import marginal
from ragweave.training.losses.pdist import pdist
from ragweave.training.losses.retriever_loss import CrossAttention, LossInputs, Reduction, RetrieverLoss

__all__ = [
    "LOSSES",
    "CrossAttention",
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


LOSSES: dict[str, RetrieverLoss] = {
    "marginal": marginal,
    "emdr2": emdr2,
    "pdist": pdist,
    "loop": loop,
    "adist": adist,
}
