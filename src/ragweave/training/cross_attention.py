"""The cross-attention of a generator with an encoder, before the softmax, for distillation.

Notation used for tensor shapes: B questions, K passages per question, H heads of all layers, T answer tokens, S
context tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ragweave.errors import ConfigurationError
from ragweave.training.recording import RecordedAttention


@dataclass(frozen=True, slots=True)
class _Projections:
    """What the projections of a family's cross-attention are called.

    Attributes:
        module: Last part of the module's name.
        query: Its projection of the decoder's states.
        key: Its projection of the encoder's states.
        value: The other one.
        heads: The attribute with the number of heads.
        scaled: Whether queries are divided by the root of D.
    """

    module: str
    query: str
    key: str
    value: str
    heads: str
    scaled: bool


_FAMILIES = (
    _Projections("encoder_attn", "q_proj", "k_proj", "v_proj", "num_heads", scaled=True),  # BART and its kin
    _Projections("EncDecAttention", "q", "k", "v", "n_heads", scaled=False),  # T5 and its kin
)


@contextmanager
def recorded_cross_attention(generator: nn.Module, record: RecordedAttention) -> Iterator[None]:
    """Record the cross-attention of what a generator computes inside.

    Args:
        generator: An encoder-decoder of transformers.
        record: What is recorded goes here.

    Raises:
        ConfigurationError: Its cross-attention is of a kind that is not known.
    """
    found = [
        (module, family)
        for name, module in generator.named_modules()
        for family in _FAMILIES
        if name.rpartition(".")[2] == family.module
    ]
    if not found:
        raise ConfigurationError(
            f"adist knows the cross-attention of BART and T5, and {type(generator).__name__} has neither. Choose "
            "emdr2, pdist or loop."
        )
    hooks = [
        module.register_forward_hook(_recorder(family, record), with_kwargs=True) for module, family in found
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _recorder(family: _Projections, record: RecordedAttention) -> Any:
    @torch.no_grad()
    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _output: Any) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        contexts = kwargs["key_value_states"]
        heads = getattr(module, family.heads)

        def split(values: Tensor) -> Tensor:
            return values.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B*K, H, T or S, D)

        query = split(getattr(module, family.query)(states))
        key, value = (split(getattr(module, name)(contexts)) for name in (family.key, family.value))
        scale = query.shape[-1] ** -0.5 if family.scaled else 1.0
        record.scores.append(scale * query @ key.transpose(-1, -2))
        record.value_norms.append(value.norm(dim=-1))

    return note
