"""LOOP, leave-one-out perplexity distillation (Izacard et al. 2022, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from ragweave.marginalization import sequence_log_likelihood, token_log_likelihood
from ragweave.training.losses.retriever_loss import LossInputs, Reduction, distil, tempered
from ragweave.types import Formulation


def loop(
    inputs: LossInputs,
    *,
    temperature: float = 1.0,
    target_temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """KL(p || p(z|x)) to the passages that the answer depends on most; trains the retriever only.

        p_k = softmax_K(-log p(y | x, D_K without z_k) / target_temperature)
        p(z|x) = softmax_K(doc_scores / temperature)

    The likelihood is `leave_one_out_log_likelihood` under the same p(z|x). A question with one passage teaches
    nothing: p and p(z|x) are both 1.
    """
    # Detached before the K sums, so that they store nothing for the backward pass.
    evidence = -leave_one_out_log_likelihood(
        inputs.counted_log_probs.detach(),
        inputs.scored,
        tempered(inputs.doc_scores.detach(), temperature),
        inputs.formulation,
    )
    return distil(inputs, evidence, temperature, target_temperature, reduction)


def leave_one_out_log_likelihood(
    token_log_probs: Tensor, scored: Tensor, doc_scores: Tensor, formulation: Formulation
) -> Tensor:
    """Log p(y | x, D_K without z_k) for every k, (B, K): the mixture without passage k; 0 if no passage remains.

        Sequence:  sum_{j≠k} p_j prod_t p(y_t | x, z_j, y_<t)
        Token:     prod_t sum_{j≠k} p_j p(y_t | x, z_j, y_<t)

    With p_j = p(z_j|x) / (1 - p(z_k|x)), the prior of the remaining passages. The arguments are fields of
    `LossInputs`.

    Atlas reads all passages at once (fusion in decoder) and needs K runs of the generator, one without each passage.
    A mixture reads every passage alone, so the log-probabilities of a single run are enough, summed K times.
    """
    b, k = doc_scores.shape
    if formulation == "sequence":  # one term for the answer is enough; (B, K, K, T) is not needed
        token_log_probs = token_log_probs.masked_fill(~scored[:, None], 0.0).sum(-1, keepdim=True)
        scored = scored.new_ones(b, 1)
    itself = torch.eye(k, dtype=torch.bool, device=doc_scores.device)
    # (B, K, K): the passage left out, then the scores of the others.
    others = doc_scores[:, None].masked_fill(itself, float("-inf"))
    nothing_left = others.isneginf().all(-1)  # (B, K)
    # A softmax over nothing is NaN, in gradients as well.
    others = others.masked_fill(nothing_left[..., None], 0.0)
    likelihood = sequence_log_likelihood if formulation == "sequence" else token_log_likelihood
    log_likelihoods = likelihood(
        token_log_probs.repeat_interleave(k, dim=0),  # (B*K, K, T)
        scored.repeat_interleave(k, dim=0),
        others.flatten(0, 1),
    ).view(b, k)
    return log_likelihoods.masked_fill(nothing_left, 0.0)
