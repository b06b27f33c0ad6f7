"""Perplexity distillation (Izacard et al. 2022, section 2.2): the passage that makes the answer likely is right."""

from __future__ import annotations

from torch import Tensor

from ragweave.training.losses.distillation import distil
from ragweave.training.losses.inputs import LossInputs
from ragweave.training.losses.options import Reduction


def pdist(
    inputs: LossInputs,
    *,
    temperature: float = 1.0,
    target_temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """KL(p || p(z|x)) to the generator's posterior under a uniform prior; trains the retriever alone.

        p_k = softmax_K(log p(y|x,z_k) / target_temperature),   p(z|x) = softmax_K(doc_scores / temperature)

    No gradient passes through p. In contrast to EMDR2 the target does not contain what the retriever thinks
    already. Log-likelihoods of long answers lie far apart and make p all but one passage: a higher
    ``target_temperature`` keeps the others in it.

    Args:
        inputs: The batch.
        temperature: Of p(z|x).
        target_temperature: Of p.
        reduction: "mean" over questions, or "none".

    Returns:
        The loss, () or (B,).

    Raises:
        ConfigurationError: An option has a value that cannot work.
    """
    return distil(inputs, inputs.answer_log_probs, temperature, target_temperature, reduction)
