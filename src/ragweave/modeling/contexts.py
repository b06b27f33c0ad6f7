"""Contexts on their way into the generator: checked, trimmed, and read once."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ragweave.errors import MissingContextError
from ragweave.modeling.arguments import longest_context

# A group of contexts that are read together has this many tokens at least: fewer leave the device idle. On a
# processor more do harm too: activations that outgrow its caches, in memory that is fetched anew for every layer.
LEAST_TOKENS = {"cpu": 512}
LEAST_TOKENS_ELSEWHERE = 2**15


@dataclass
class EncodedContexts:
    """What the generator remembers of B*K contexts after it has read them once.

    Attributes:
        attention_mask: Mask of the contexts, (B*K, S).
        last_hidden_state: Encoder states of a seq2seq generator, (B*K, S, H).
        hidden_states: The encoder's hidden states layer by layer, where asked for.
        attentions: The encoder's attentions layer by layer, where asked for.
        input_ids: The contexts of a causal generator, (B*K, S).
        prompt_cache: Keys and values of a causal generator's prompt without its last token.
    """

    attention_mask: Tensor
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    input_ids: Tensor | None = None
    prompt_cache: Cache | None = None
    _repeated: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.attention_mask.shape[0]

    def repeated_states(self, times: int) -> tuple[Tensor, Tensor]:
        """Encoder states and mask for R rows per context, (B*K*R, S, H) and (B*K*R, S); made once."""
        if self.last_hidden_state is None:
            raise MissingContextError(
                "These contexts were read by a causal generator and have no encoder states."
            )
        if times == 1:
            return self.last_hidden_state, self.attention_mask
        if times not in self._repeated:
            self._repeated[times] = (
                self.last_hidden_state.repeat_interleave(times, dim=0),
                self.attention_mask.repeat_interleave(times, dim=0),
            )
        return self._repeated[times]


def trim_right(context_input_ids: Tensor, context_attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cut the columns that are padding in every row, on the right: they can change no result, but cost time.

    Left padding stays, since models with absolute positions count it.

    Args:
        context_input_ids: Contexts, (B*K, S).
        context_attention_mask: Their mask, (B*K, S).

    Returns:
        Both, with S the length of the longest real context (1 at least).
    """
    longest = longest_context(context_attention_mask)
    return context_input_ids[:, :longest], context_attention_mask[:, :longest]


def length_groups(lengths: Tensor, *, whole: bool = False) -> list[Tensor]:
    """Rows of contexts of like length, to be read together.

    Args:
        lengths: How many columns each context needs, (N,).
        whole: Make one group.

    Returns:
        Indices of rows, those of the longest contexts first, in groups as small as keeps the device busy; a
        single group is in the rows' own order.
    """
    rows = len(lengths)
    everything = torch.arange(rows, device=lengths.device)
    if whole:
        return [everything]
    least = LEAST_TOKENS.get(lengths.device.type, LEAST_TOKENS_ELSEWHERE)
    order = lengths.argsort(descending=True, stable=True)
    groups, begin, tokens = [], 0, 0
    for row, length in enumerate(lengths[order].tolist(), start=1):
        tokens += length
        if tokens >= least and row < rows:
            groups.append(order[begin:row])
            begin, tokens = row, 0
    groups.append(order[begin:])
    return groups if len(groups) > 1 else [everything]


def context_ends(context_attention_mask: Tensor) -> Tensor:
    """For each context, one more than the last column in which it has a token, (N,)."""
    columns = context_attention_mask.shape[1]
    positions = torch.arange(1, columns + 1, device=context_attention_mask.device)
    return (context_attention_mask.ne(0) * positions).amax(1)
