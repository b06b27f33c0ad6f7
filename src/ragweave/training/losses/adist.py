"""Attention distillation (Izacard & Grave 2021; Izacard et al. 2022, section 2.2), for a mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from ragweave.errors import ConfigurationError
from ragweave.training.losses.attention import CrossAttention
from ragweave.training.losses.distillation import distil
from ragweave.training.losses.inputs import LossInputs
from ragweave.training.losses.options import Reduction


def adist(
    inputs: LossInputs,
    *,
    temperature: float = 1.0,
    target_temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """KL(p || p(z|x)) to what the generator looked at while it read the answer; trains the retriever alone.

        p_k = softmax_K(w_k / target_temperature),   p(z|x) = softmax_K(doc_scores / temperature)

    With w_k of `passage_attention`. No gradient passes through p. Weights w_k are no logarithms: none exceeds
    the largest value norm, and they are often close together; a lower ``target_temperature`` makes more of their
    differences.

    Args:
        inputs: The batch, with ``attention``.
        temperature: Of p(z|x).
        target_temperature: Of p.
        reduction: "mean" over questions, or "none".

    Returns:
        The loss, () or (B,).

    Raises:
        ConfigurationError: An option has a value that cannot work, or there is no attention.
    """
    if inputs.attention is None:
        raise ConfigurationError(
            "adist needs the generator's attention to its contexts, which is not there: give "
            "LossInputs(attention=...), or choose another loss."
        )
    evidence = passage_attention(inputs.attention, inputs.present, inputs.scored)
    return distil(inputs, evidence, temperature, target_temperature, reduction)


@torch.no_grad()
def passage_attention(attention: CrossAttention, present: Tensor, scored: Tensor) -> Tensor:
    """How much the generator took from each passage, w_k, (B, K).

        w_k = mean_{h,t} sum_s a_kts ||v_ks||,   a_kts = exp(e_kts) / sum_{j,r} exp(e_jtr)

    With e the scores before the softmax and v the value vectors, of each head h of each layer; the mean is over
    heads, layers and the target tokens that count.

    In Atlas the decoder attends to all passages at once, and a is its attention as it is. A mixture's generator
    reads each passage in a context of its own, where attention sums to one whatever the passage: as it is, it
    would give all passages the same weight but for their value norms. The scores are normalised anew here over
    the tokens of all K passages, which multiplies the attention inside passage k by its share
    Z_k / sum_j Z_j, with Z_k = sum_s exp(e_kts). In the first layer that is the very attention of a decoder
    that sees all passages (over these contexts), because its queries depend on no passage yet (but for their
    positions, where the generator is causal). In later layers each passage has changed the query it is asked with.
    A softmax does not feel what is added to all its scores, and so nothing in the generator's training keeps scores
    of different queries on one scale: Z_k tells passages apart there only as far as queries stayed alike.

    Where a generator hands out nothing but attention weights, their logarithms as ``scores`` make Z_k = 1: every
    passage gets 1/K of the attention, and the value norms alone tell them apart.

    Args:
        attention: Scores, value norms and mask.
        present: Which passages there are, bool, (B, K).
        scored: Which target tokens count, bool, (B, T).

    Returns:
        Weights, (B, K), without gradient; 0 where there is no passage.
    """
    unread = ~(attention.mask & present[..., None])  # (B, K, S)
    scores = attention.scores.masked_fill(unread[:, :, None, None], float("-inf"))
    b, k, h, t, s = scores.shape
    joint = scores.permute(0, 2, 3, 1, 4).reshape(b, h, t, k * s)
    blind = joint.isneginf().all(-1, keepdim=True)  # of a window that has left the passages behind
    joint = joint.masked_fill(blind, 0.0)
    joint = torch.softmax(joint, dim=-1, dtype=torch.promote_types(joint.dtype, torch.float32))
    joint = joint.masked_fill(blind, 0.0)
    norms = attention.value_norms.masked_fill(unread[:, :, None], 0.0).to(joint.dtype)  # (B, K, H, S)
    taken = torch.einsum("bhtks,bkhs->bkht", joint.view(b, h, t, k, s), norms)
    taken = taken.masked_fill(~scored[:, None, None], 0.0)
    return taken.sum((2, 3)) / (h * scored.sum(-1, keepdim=True))
