"""ADist, attention distillation (Izacard & Grave 2021; Izacard et al. 2022, section 2.2), for a mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from ragweave.errors import ConfigurationError
from ragweave.training.losses.retriever_loss import CrossAttention, LossInputs, Reduction, distil


def adist(
    inputs: LossInputs,
    *,
    temperature: float = 1.0,
    target_temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """KL(p || p(z|x)) to the answer's attention to the passages; trains the retriever only.

        p_k = softmax_K(w_k / target_temperature),   p(z|x) = softmax_K(doc_scores / temperature)

    The weights w_k are those of `passage_attention`. They are not logarithms: none exceeds the largest value norm,
    and they are often close together. A lower ``target_temperature`` enlarges their differences.

    Raises `ConfigurationError` if the attention is missing.
    """
    if inputs.attention is None:
        raise ConfigurationError(
            "adist needs the generator's attention to its contexts: give LossInputs(attention=...), or choose "
            "another loss."
        )
    evidence = passage_attention(inputs.attention, inputs.present, inputs.scored)
    return distil(inputs, evidence, temperature, target_temperature, reduction)


@torch.no_grad()
def passage_attention(attention: CrossAttention, present: Tensor, scored: Tensor) -> Tensor:
    """Attention to each passage, w_k, (B, K), without gradient; 0 for missing passages.

        w_k = mean_{h,t} sum_s a_kts ||v_ks||,   a_kts = exp(e_kts) / sum_{j,r} exp(e_jtr)

    Here e are the scores before the softmax and v the value vectors of a head h. The mean is over the heads of all
    layers and the target tokens that count. ``present`` and ``scored`` are those of `LossInputs`.

    In Atlas the decoder attends to all passages at once, and a is its attention. A mixture's generator reads each
    passage in a separate context, where the attention sums to one: all passages would get the same weight, apart
    from value norms. Here the scores are normalised again, over the tokens of all K passages. This multiplies the
    attention within passage k by Z_k / sum_j Z_j, with Z_k = sum_s exp(e_kts). In the first layer the result equals
    the attention of a decoder that sees all passages, because its queries depend on no passage yet (for causal
    generators, apart from their positions). In later layers the query depends on the passage, and a softmax ignores
    whatever is added to all of its scores, so training does not keep the scores of different queries on one scale.
    There Z_k compares passages only as far as their queries stayed alike.

    If a generator provides attention weights only, pass their logarithms as ``scores``. Then Z_k = 1: every passage
    gets 1/K of the attention, and they differ by their value norms only.
    """
    hidden = ~(attention.mask & present[..., None])  # (B, K, S)
    scores = attention.scores.masked_fill(hidden[:, :, None, None], float("-inf"))
    b, k, h, t, s = scores.shape
    joint = scores.permute(0, 2, 3, 1, 4).reshape(b, h, t, k * s)
    # A sliding window may exclude all passages; a softmax over nothing is NaN.
    nothing = joint.isneginf().all(-1, keepdim=True)  # (B, H, T, 1)
    joint = joint.masked_fill(nothing, 0.0)
    joint = torch.softmax(joint, dim=-1, dtype=torch.promote_types(joint.dtype, torch.float32))
    joint = joint.masked_fill(nothing, 0.0)
    norms = attention.value_norms.masked_fill(hidden[:, :, None], 0.0).to(joint.dtype)  # (B, K, H, S)
    weights = torch.einsum("bhtks,bkhs->bkht", joint.view(b, h, t, k, s), norms)
    weights = weights.masked_fill(~scored[:, None, None], 0.0)
    return weights.sum((2, 3)) / (h * scored.sum(-1, keepdim=True))
