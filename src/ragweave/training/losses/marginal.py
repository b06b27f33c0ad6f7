"""Marginal likelihood (Lewis et al. 2020): the answer's probability under the mixture of passages."""

from __future__ import annotations

from torch import Tensor

from ragweave.marginalization import sequence_log_likelihood, token_log_likelihood
from ragweave.training.losses.retriever_loss import LossInputs, Reduction, reduced, tempered


def marginal(inputs: LossInputs, *, temperature: float = 1.0, reduction: Reduction = "mean") -> Tensor:
    """Negative marginal log-likelihood, -log p(y|x); trains retriever and generator.

        Sequence:  p(y|x) = sum_z p(z|x) prod_t p(y_t | x, z, y_<t)
        Token:     p(y|x) = prod_t sum_z p(z|x) p(y_t | x, z, y_<t)

    With p(z|x) = softmax_K(doc_scores / temperature).
    """
    likelihood = sequence_log_likelihood if inputs.formulation == "sequence" else token_log_likelihood
    doc_scores = tempered(inputs.doc_scores, temperature)
    return reduced(-likelihood(inputs.counted_log_probs, inputs.scored, doc_scores), reduction)
