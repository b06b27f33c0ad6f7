"""Attention in which R rows of queries share one row of keys and values.

The beams of a passage read the same context, so their keys and values are equal: kept once per passage, they
need neither be computed nor stored nor moved per beam. The rows' queries are folded into the query length
instead, (N*R, h, T, d) to (N, h, R*T, d), and one call attends for all of them.

It is registered with transformers' attention interface under a name of its own, and is sdpa where nothing is
shared.

Notation used for tensor shapes: N rows of keys, R rows of queries for each, h heads, T queries, S keys, d size of
a head.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "ragweave_shared_sdpa"

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


def share_context_keys(generator: PreTrainedModel) -> bool:
    """Let a generator that uses sdpa share keys and values along rows.

    Args:
        generator: A model of transformers; its attention implementation is changed.

    Returns:
        Whether it shares them now: false where the caller chose another implementation than sdpa, and for
        models that are none of `SHARING_TYPES`.
    """
    if generator.config.model_type not in SHARING_TYPES:
        return False
    if generator.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, shared_sdpa_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        generator.set_attn_implementation(NAME)
    return generator.config._attn_implementation == NAME


def _for_each_row(mask: Tensor | None, times: int) -> Tensor | None:
    """A mask over T queries, repeated for R rows of them: (.., T, S) to (.., R*T, S)."""
    if mask is None or mask.shape[-2] == 1:
        return mask
    return mask.repeat(1, 1, times, 1)
