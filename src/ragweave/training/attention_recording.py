"""Records a generator's attention to its contexts before the softmax, for ADist (`ragweave.training.losses.adist`).

In seq2seq generators it is the cross-attention. Causal generators have none: it is their self-attention from the
answer's positions to the prompt's. Attention to the answer's own tokens says nothing about passages and is left out.

Notation used for tensor shapes
    B questions, K passages per question, T answer tokens, S context tokens; h heads of a layer, g of them per head of
    keys, H heads of all layers; d size of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from ragweave.errors import ConfigurationError
from ragweave.modeling.attention import NAME as SHARED_SDPA
from ragweave.modeling.attention import attention_implementation, shared_sdpa_attention
from ragweave.training.losses import CrossAttention

_RECORDING_SDPA = "ragweave_recorded_sdpa"
# The module attribute that passes the record of a generator to the attention function.
_RECORD = "ragweave_record"


@dataclass
class AttentionRecord:
    """Scores before the softmax, -inf for hidden tokens, and value norms of one forward pass, a tensor per layer."""

    scores: list[Tensor] = field(default_factory=list)  # (B*K, h, T, S)
    value_norms: list[Tensor] = field(default_factory=list)  # (B*K, h, S)
    # The remaining fields are for causal generators, whose input is padded in other places.
    mask: Tensor | None = None  # which context tokens were seen, bool, (B*K, S)
    answer_length: int = 0  # T

    def by_passage(self, n_docs: int, context_attention_mask: Tensor) -> CrossAttention:
        """The recorded attention with the layers concatenated, (B, K, ...); the mask is (B*K, S) or wider.

        Raises `ConfigurationError` if nothing was recorded, because the generator computes its attention itself.
        """
        if not self.scores:
            raise ConfigurationError(
                "adist recorded no attention, because the generator does not use transformers' attention "
                "functions. Choose emdr2, pdist or loop."
            )
        scores, norms = torch.cat(self.scores, 1), torch.cat(self.value_norms, 1)
        mask = context_attention_mask if self.mask is None else self.mask
        mask = mask[:, : scores.shape[-1]].bool()
        return CrossAttention(*(tensor.unflatten(0, (-1, n_docs)) for tensor in (scores, norms, mask)))


@contextmanager
def record_attention(generator: PreTrainedModel) -> Iterator[AttentionRecord]:
    """Record a generator's attention to its contexts; a causal one reads prompt and answer in one pass.

    Raises `ConfigurationError` if its attention is of an unsupported kind.
    """
    record = AttentionRecord()
    seq2seq = generator.config.is_encoder_decoder
    with (_cross_attention if seq2seq else _self_attention)(generator, record):
        yield record


class _Projections(NamedTuple):
    """Names of the parts of a cross-attention module."""

    query: str
    key: str
    value: str
    n_heads: str
    scaled: bool  # whether scores are divided by the root of d


_PROJECTIONS = {
    "encoder_attn": _Projections("q_proj", "k_proj", "v_proj", "num_heads", scaled=True),  # BART's family
    "EncDecAttention": _Projections("q", "k", "v", "n_heads", scaled=False),  # T5's family
}


@contextmanager
def _cross_attention(generator: nn.Module, record: AttentionRecord) -> Iterator[None]:
    hooks = [
        module.register_forward_hook(partial(_record_cross_attention, record, projections), with_kwargs=True)
        for name, module in generator.named_modules()
        if (projections := _PROJECTIONS.get(name.rpartition(".")[2])) is not None
    ]
    if not hooks:
        raise ConfigurationError(
            f"adist supports the cross-attention of BART and T5, and {type(generator).__name__} has neither. Choose "
            "emdr2, pdist or loop."
        )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _record_cross_attention(
    record: AttentionRecord,
    projections: _Projections,
    module: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    _output: Any,
) -> None:
    """A forward hook: recompute the scores of one layer, because sdpa does not return them."""
    states, contexts = args[0] if args else kwargs["hidden_states"], kwargs["key_value_states"]
    heads = getattr(module, projections.n_heads)
    query, key, value = (
        getattr(module, name)(inputs).unflatten(-1, (heads, -1)).transpose(1, 2)
        for name, inputs in zip(projections[:3], (states, contexts, contexts), strict=True)
    )  # (B*K, h, T or S, d)
    scale = query.shape[-1] ** -0.5 if projections.scaled else 1.0
    record.scores.append(scale * query @ key.transpose(-1, -2))
    record.value_norms.append(value.norm(dim=-1))


@contextmanager
def _self_attention(generator: PreTrainedModel, record: AttentionRecord) -> Iterator[None]:
    implementation = attention_implementation(generator)
    if implementation not in ("sdpa", SHARED_SDPA):
        raise ConfigurationError(
            f"adist needs a causal generator with sdpa attention, and {type(generator).__name__} has "
            f"{implementation}: load it with attn_implementation='sdpa', or choose emdr2, pdist or loop."
        )
    AttentionInterface.register(_RECORDING_SDPA, _recording_sdpa)
    AttentionMaskInterface.register(_RECORDING_SDPA, sdpa_mask)
    generator.set_attn_implementation(_RECORDING_SDPA)
    modules = list(generator.modules())
    for module in modules:
        setattr(module, _RECORD, record)
    hook = generator.register_forward_pre_hook(partial(_record_length, record), with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        for module in modules:
            delattr(module, _RECORD)
        generator.set_attn_implementation(implementation)


def _record_length(
    record: AttentionRecord, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    # The model asks for the logits of the answer's positions only.
    record.answer_length = kwargs["logits_to_keep"]


def _recording_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: sdpa, which also records the scores."""
    record = getattr(module, _RECORD, None)
    if record is not None:
        _record_self_attention(record, query, key, value, attention_mask, kwargs.get("scaling"))
    return shared_sdpa_attention(module, query, key, value, attention_mask, **kwargs)


@torch.no_grad()
def _record_self_attention(
    record: AttentionRecord,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None,
) -> None:
    """Record the scores of one layer.

    The query is (B*K, h, S+T, d), key and value are (B*K, h/g, S+T, d). The mask, (B*K or 1, 1, S+T, S+T), is bool or
    added to the scores; without one, a query sees all keys before it.
    """
    length = record.answer_length
    prompt = key.shape[2] - length
    if prompt < 1:  # the prompt is in a cache
        return
    groups = query.shape[1] // key.shape[1]
    keys = key[:, :, :prompt].repeat_interleave(groups, 1)  # (B*K, h, S, d)
    norms = value[:, :, :prompt].norm(dim=-1).repeat_interleave(groups, 1)  # (B*K, h, S)
    scores = query[:, :, -length:] @ keys.transpose(-1, -2)  # (B*K, h, T, S)
    scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    seen = torch.ones_like(scores[:, :1], dtype=torch.bool)  # (B*K, 1, T, S)
    if attention_mask is not None:
        mask = attention_mask[:, :, -length:, :prompt]
        seen = seen & (mask if mask.dtype == torch.bool else mask >= 0)
    record.scores.append(scores.masked_fill(~seen, float("-inf")))
    record.value_norms.append(norms)
    seen_by_any = seen.any(2)[:, 0]  # (B*K, S)
    record.mask = seen_by_any if record.mask is None else record.mask | seen_by_any
