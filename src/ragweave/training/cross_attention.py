"""How a generator looks at passages while it is trained: its cross-attention before the softmax, for distillation.

Notation used for tensor shapes: B questions, K passages per question, H heads of all layers, T answer tokens, S
context tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ragweave.errors import ConfigurationError
from ragweave.training.losses import CrossAttention


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


@dataclass
class RecordedAttention:
    """Scores and value norms, layer by layer, of one forward pass.

    Attributes:
        scores: Of each layer, (B*K, H, T, S).
        value_norms: Of each layer, (B*K, H, S).
    """

    scores: list[Tensor] = field(default_factory=list)
    value_norms: list[Tensor] = field(default_factory=list)

    def of_passages(self, n_docs: int, context_attention_mask: Tensor) -> CrossAttention:
        """What was recorded, by passage.

        Args:
            n_docs: K.
            context_attention_mask: Mask of the contexts, (B*K, S) or wider.
        """
        scores, norms = torch.cat(self.scores, 1), torch.cat(self.value_norms, 1)
        mask = context_attention_mask[:, : scores.shape[-1]].bool()
        return CrossAttention(*(own.unflatten(0, (-1, n_docs)) for own in (scores, norms, mask)))


@contextmanager
def recorded_attention(generator: nn.Module) -> Iterator[RecordedAttention]:
    """Record the cross-attention of what a generator computes inside.

    Raises:
        ConfigurationError: The generator has none, or of a kind that is not known.
    """
    found = [
        (module, family)
        for name, module in generator.named_modules()
        for family in _FAMILIES
        if name.rpartition(".")[2] == family.module
    ]
    if not found:
        raise ConfigurationError(
            f"adist needs a generator with the cross-attention of BART or T5; {type(generator).__name__} has none. "
            "Choose emdr2, pdist or loop."
        )
    record = RecordedAttention()
    hooks = [
        module.register_forward_hook(_recorder(family, record), with_kwargs=True) for module, family in found
    ]
    try:
        yield record
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
