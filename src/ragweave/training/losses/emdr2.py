"""EMDR2 (Sachan et al. 2021, arXiv 2106.05346): expectation maximisation over the retrieved passages."""

from __future__ import annotations

import torch
from torch import Tensor

from ragweave.marginalization import passage_log_probs
from ragweave.training.losses.retriever_loss import LossInputs, Reduction, reduced, tempered


def emdr2(inputs: LossInputs, *, temperature: float = 1.0, reduction: Reduction = "mean") -> Tensor:
    """Negative log-likelihood of the answer under a fixed generator; trains the retriever only.

        -log sum_z sg[p(y|x,z)] p(z|x),   p(z|x) = softmax_K(doc_scores / temperature)

    sg[.] stops the gradient. The gradient in the scores is (p(z|x) - p(z|x,y)) / temperature: the posterior is the
    E step, the step towards it the M step. The marginal likelihood of RAG-Sequence has the same gradient in the
    scores. EMDR2 leaves the generator to another loss (in the paper, that of a reader of all passages at once). It
    scores the whole answer under each passage, for both formulations.
    """
    joint = passage_log_probs(tempered(inputs.doc_scores, temperature)) + inputs.answer_log_probs.detach()
    return reduced(-torch.logsumexp(joint, dim=-1), reduction)
