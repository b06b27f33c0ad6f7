"""EMDR2 (Sachan et al. 2021, arXiv 2106.05346): expectation maximisation over the retrieved passages."""

from __future__ import annotations

import torch
from torch import Tensor

from ragweave.marginalization import passage_log_probs
from ragweave.training.losses.inputs import LossInputs
from ragweave.training.losses.options import Reduction, reduced, tempered


def emdr2(inputs: LossInputs, *, temperature: float = 1.0, reduction: Reduction = "mean") -> Tensor:
    """Negative log of the answer's probability, the generator taken as given; trains the retriever alone.

        -log sum_z sg[p(y|x,z)] p(z|x),   p(z|x) = softmax_K(doc_scores / temperature)

    sg[.] stops the gradient. The gradient in the scores is (p(z|x) - p(z|x,y)) / temperature: the posterior is
    the E step, the step towards it the M step. It is the gradient that RAG-Sequence's marginal likelihood has
    in the scores; what differs is that the generator does not move, so that it can be trained by another loss
    (in the paper by that of a reader of all passages at once). The formulation of the model does not matter
    here: it is the whole answer that a passage explains.

    Args:
        inputs: The batch.
        temperature: Of p(z|x).
        reduction: "mean" over questions, or "none".

    Returns:
        The loss, () or (B,).

    Raises:
        ConfigurationError: An option has a value that cannot work.
    """
    joint = passage_log_probs(tempered(inputs.doc_scores, temperature)) + inputs.answer_log_probs.detach()
    return reduced(-torch.logsumexp(joint, dim=-1), reduction)
