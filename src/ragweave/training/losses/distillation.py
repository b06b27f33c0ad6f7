"""What the distillation losses share: the retriever learns a distribution over passages from the generator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ragweave.marginalization import passage_log_probs
from ragweave.training.losses.inputs import LossInputs
from ragweave.training.losses.options import Reduction, reduced, tempered


def target_distribution(evidence: Tensor, present: Tensor, target_temperature: float) -> Tensor:
    """p_k = softmax_K(evidence / target_temperature), (B, K), without gradient; 0 where there is no passage.

    Args:
        evidence: What speaks for each passage, (B, K); may be anything finite where there is none.
        present: Which passages there are, bool, (B, K).
        target_temperature: Above 1 makes the distribution flatter.
    """
    logits = tempered(evidence.detach(), target_temperature, "target_temperature")
    return torch.softmax(logits.masked_fill(~present, float("-inf")), dim=-1)


def distil(
    inputs: LossInputs, evidence: Tensor, temperature: float, target_temperature: float, reduction: Reduction
) -> Tensor:
    """KL(p || p(z|x)) = sum_k p_k (log p_k - log p(z_k|x)), with p = `target_distribution`.

    Its gradient in the scores is (p(z|x) - p) / temperature.

    Args:
        inputs: The batch.
        evidence: What speaks for each passage, (B, K); may be anything finite where there is none.
        temperature: Of p(z|x).
        target_temperature: Of p.
        reduction: "mean" over questions, or "none".

    Returns:
        The loss, () or (B,).
    """
    target = target_distribution(evidence, inputs.present, target_temperature)
    log_probs = passage_log_probs(tempered(inputs.doc_scores, temperature))
    # 0 times -inf is no number: where there is no passage, both factors are 0.
    log_probs = log_probs.masked_fill(~inputs.present, 0.0)
    return reduced(functional.kl_div(log_probs, target, reduction="none").sum(-1), reduction)
