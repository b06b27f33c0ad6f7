"""PDist, perplexity distillation (Izacard et al. 2022, section 2.2): good passages make the answer likely."""

from __future__ import annotations

from torch import Tensor

from ragweave.training.losses.retriever_loss import LossInputs, Reduction, distil


def pdist(
    inputs: LossInputs,
    *,
    temperature: float = 1.0,
    target_temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """KL(p || p(z|x)) to the generator's posterior under a uniform prior; trains the retriever only.

        p_k = softmax_K(log p(y|x,z_k) / target_temperature),   p(z|x) = softmax_K(doc_scores / temperature)

    Unlike in EMDR2, the target does not depend on the retriever's scores. The log-likelihoods of long answers differ
    widely, so p has nearly all its mass on one passage; a higher ``target_temperature`` spreads it.
    """
    return distil(inputs, inputs.answer_log_probs, temperature, target_temperature, reduction)
