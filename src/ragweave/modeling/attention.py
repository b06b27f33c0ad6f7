"""Attention in which R rows of queries share one row of keys and values.

The beams of a passage read the same context, so their keys and values are equal: kept once per passage, they
need neither be computed nor stored nor moved per beam. The rows' queries are folded into the query length
instead, (N*R, h, T, d) to (N, h, R*T, d), and one call attends for all of them.

The cross attention of a seq2seq generator shares all of its keys. A causal generator's keys are those of the
prompt, which beams share (`ragweave.modeling.caches.PromptLayer` keeps them), and those of the answer, each beam's
own: `prompt_attention` attends to both at once.

It is registered with transformers' attention interface under a name of its own, and is sdpa where nothing is
shared.

Notation used for tensor shapes: N rows of keys, R rows of queries for each, h heads, g of them for each head of
keys, T queries, S keys, d size of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "ragweave_shared_sdpa"
# The attribute under which keys of answers carry keys and values of their prompts to the attention function.
PROMPT = "ragweave_prompt"

# Model types whose cross attention counts rows of keys by the keys. Others (UMT5) count those of the queries,
# and would cut a context's keys into R rows, without an error where the numbers divide.
SHARING_TYPES = frozenset(
    {
        "bart",
        "blenderbot",
        "blenderbot-small",
        "m2m_100",
        "marian",
        "mbart",
        "mt5",
        "pegasus",
        "plbart",
        "t5",
    }
)


# Causal model types whose layers attend plainly to all that is cached, and hand the cache's keys to the attention
# function as they are: no sliding windows, soft caps or sinks.
PROMPT_SHARING_TYPES = frozenset(
    {"gemma", "gpt2", "gpt_neox", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"}
)


def shared_sdpa_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend from (N*R, h, T, d) queries to (N, h, S, d) keys; an attention function of transformers.

    Keys of a `PromptLayer` carry the prompt's along.

    Args:
        module: The attention module.
        query: Queries, (N*R, h, T, d), rows that share keys next to each other.
        key: Keys, (N, h, S, d).
        value: Values, (N, h, S, d).
        attention_mask: Mask, (N or 1, 1, T or 1, S).
        position_bias: T5's bias, (1, h, T, S).
        **kwargs: Handed on to sdpa.

    Returns:
        What is attended to, (N*R, T, h, d), and no weights.
    """
    prompt = getattr(key, PROMPT, None)
    if prompt is not None:
        prompt_key, prompt_value = prompt
        scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
        found = prompt_attention(query, key, value, prompt_key, prompt_value, attention_mask, scaling=scaling)
        return found, None
    times = query.shape[0] // key.shape[0]
    if times == 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, position_bias=position_bias, **kwargs
        )
    n, (_, heads, length, size) = key.shape[0], query.shape
    folded = query.view(n, times, heads, length, size).transpose(1, 2).reshape(n, heads, times * length, size)
    output, _ = sdpa_attention_forward(
        module,
        folded,
        key,
        value,
        _for_each_row(attention_mask, times),
        position_bias=_for_each_row(position_bias, times),
        **kwargs,
    )  # (N, R*T, h, d)
    return output.view(n * times, length, heads, size), None


def prompt_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prompt_key: Tensor,
    prompt_value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
) -> Tensor:
    """Attend to a prompt that R rows share, and to what each row has said.

    Args:
        query: Queries, (N*R, h, T, d).
        key: Keys of the answers, (N*R, h/g, T', d).
        value: Their values.
        prompt_key: Keys of the prompts, (N, h/g, S, d).
        prompt_value: Their values.
        attention_mask: Which keys each query sees, bool or added to the scores, (N*R, 1, T, S+T'); the prompt's
            part is the same for all rows and queries of a prompt. ``None`` where every query sees all.
        scaling: Factor of the scores.

    Returns:
        What is attended to, (N*R, T, h, d).
    """
    n, key_heads, length, size = prompt_key.shape
    rows, heads, queries, _ = query.shape
    times, groups = rows // n, heads // key_heads

    def of_rows(tensor: Tensor) -> Tensor:
        """(N, h/g, R*g*T, any) to (N*R, h/g, g*T, any)."""
        return (
            tensor.view(n, key_heads, times, groups * queries, -1)
            .transpose(1, 2)
            .reshape(rows, key_heads, groups * queries, -1)
        )

    def of_prompts(tensor: Tensor) -> Tensor:
        """(N*R, h/g, g*T, any) to (N, h/g, R*g*T, any)."""
        return (
            tensor.view(n, times, key_heads, groups * queries, -1)
            .transpose(1, 2)
            .reshape(n, key_heads, times * groups * queries, -1)
        )

    own = (query * scaling).reshape(rows, key_heads, groups * queries, size)
    of_prompt = (of_prompts(own) @ prompt_key.transpose(-1, -2)).float()  # (N, h/g, R*g*T, S)
    of_answer = (own @ key.transpose(-1, -2)).float()  # (N*R, h/g, g*T, T')
    if attention_mask is not None:
        first = attention_mask.expand(rows, -1, queries, -1).view(n, times, 1, queries, -1)[:, 0, :, :1]
        of_prompt = _masked(of_prompt, first[..., :length])
        of_answer = _masked(
            of_answer.view(rows, key_heads, groups, queries, -1), attention_mask[..., length:].unsqueeze(1)
        ).flatten(2, 3)

    # One softmax over both: what each part sums to is joined by way of their common largest score.
    largest = torch.maximum(of_rows(of_prompt.amax(-1, keepdim=True)), of_answer.amax(-1, keepdim=True))
    of_prompt = (of_prompt - of_prompts(largest)).exp_()
    of_answer = (of_answer - largest).exp_()
    total = of_rows(of_prompt.sum(-1, keepdim=True)) + of_answer.sum(-1, keepdim=True)
    found = of_rows(of_prompt.to(value.dtype) @ prompt_value) + of_answer.to(value.dtype) @ value
    found = found / total.to(value.dtype)  # (N*R, h/g, g*T, d)
    return found.view(rows, heads, queries, size).transpose(1, 2).contiguous()


def share_context_keys(generator: PreTrainedModel) -> bool:
    """Let a generator that uses sdpa share keys and values along rows.

    Args:
        generator: A model of transformers; its attention implementation is changed.

    Returns:
        Whether it shares them now: false where the caller chose another implementation than sdpa, and for
        models that are none of `SHARING_TYPES`.
    """
    return generator.config.model_type in SHARING_TYPES and _registered(generator)


def share_prompts(generator: PreTrainedModel) -> bool:
    """Let a causal generator that uses sdpa share its prompts along rows; as `share_context_keys` otherwise."""
    return generator.config.model_type in PROMPT_SHARING_TYPES and _registered(generator)


def _registered(generator: PreTrainedModel) -> bool:
    """Turn a generator's sdpa into ours; whether it is ours now."""
    if generator.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, shared_sdpa_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        generator.set_attn_implementation(NAME)
    return bool(generator.config._attn_implementation == NAME)


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores with those of hidden keys at the lowest number there is."""
    if mask.dtype != torch.bool:
        return scores + mask
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)


def _for_each_row(mask: Tensor | None, times: int) -> Tensor | None:
    """A mask over T queries, repeated for R rows of them: (.., T, S) to (.., R*T, S)."""
    if mask is None or mask.shape[-2] == 1:
        return mask
    return mask.repeat(1, 1, times, 1)
