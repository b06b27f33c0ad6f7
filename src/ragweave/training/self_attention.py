"""A causal generator's attention from the answer to its context, for distillation: it has no cross-attention.

What a decoder with an encoder asks of the context through cross-attention, a causal generator asks through
self-attention, from the answer's positions to those of the prompt. Attention to the answer's own tokens says nothing
of passages, and is left out.

Notation used for tensor shapes: B questions, K passages per question, h heads of a layer, g of them for each head of
keys, T answer tokens, S prompt tokens, d size of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from ragweave.errors import ConfigurationError
from ragweave.modeling.attention import NAME as SHARED
from ragweave.modeling.attention import shared_sdpa_attention
from ragweave.training.recording import RecordedAttention

NAME = "ragweave_recorded_sdpa"
# The attribute under which modules of a generator that is recorded have their record.
RECORD = "ragweave_record"


@contextmanager
def recorded_self_attention(generator: PreTrainedModel, record: RecordedAttention) -> Iterator[None]:
    """Record what the answer's positions see of the prompt.

    Args:
        generator: A causal language model of transformers, which reads prompt and answer in one pass and is told
            with ``logits_to_keep`` how long the answer is.
        record: What is recorded goes here.

    Raises:
        ConfigurationError: The generator does not attend by sdpa, in whose place the recording stands.
    """
    before = generator.config._attn_implementation
    if before not in ("sdpa", SHARED):
        raise ConfigurationError(
            f"adist needs a causal generator that attends by sdpa, and {type(generator).__name__} does by {before}: "
            "load it with attn_implementation='sdpa' where it can, or choose emdr2, pdist or loop."
        )
    AttentionInterface.register(NAME, _recording_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    generator.set_attn_implementation(NAME)
    modules = list(generator.modules())
    for module in modules:
        setattr(module, RECORD, record)
    hook = generator.register_forward_pre_hook(partial(_begin, record), with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        for module in modules:
            delattr(module, RECORD)
        generator.set_attn_implementation(before)


def _begin(
    record: RecordedAttention, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    record.length = kwargs["logits_to_keep"]


def _recording_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: sdpa, of which notes are taken."""
    record = getattr(module, RECORD, None)
    if record is not None:
        _note(record, query, key, value, attention_mask, kwargs.get("scaling"))
    return shared_sdpa_attention(module, query, key, value, attention_mask, **kwargs)


@torch.no_grad()
def _note(
    record: RecordedAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None,
) -> None:
    """Note the scores of one layer.

    Args:
        record: Where they go, and T.
        query: Queries, (B*K, h, S+T, d).
        key: Keys, (B*K, h/g, S+T, d).
        value: Values, (B*K, h/g, S+T, d).
        attention_mask: Which keys each query sees, bool or added to the scores, (B*K or 1, 1, S+T, S+T), or ``None``
            where it sees all before it.
        scaling: Factor of the scores; the root of 1/d where left out.
    """
    length = record.length
    prompt = key.shape[2] - length
    if prompt < 1:  # it was read before, into a cache
        return
    groups = query.shape[1] // key.shape[1]
    keys = key[:, :, :prompt].repeat_interleave(groups, 1)  # (B*K, h, S, d)
    norms = value[:, :, :prompt].norm(dim=-1).repeat_interleave(groups, 1)  # (B*K, h, S)
    scores = query[:, :, -length:] @ keys.transpose(-1, -2)  # (B*K, h, T, S)
    scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    seen = torch.ones_like(scores[:, :1], dtype=torch.bool)  # (B*K, 1, T, S)
    if attention_mask is not None:
        own = attention_mask[:, :, -length:, :prompt]
        seen = seen & (own if own.dtype == torch.bool else own >= 0)
    record.scores.append(scores.masked_fill(~seen, float("-inf")))
    record.value_norms.append(norms)
    now = seen.any(2)[:, 0]  # (B*K, S)
    record.mask = now if record.mask is None else record.mask | now
