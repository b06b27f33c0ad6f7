"""Contexts before and after the generator encodes them, and the mixtures of them that a search decodes.

Notation used for tensor shapes: B questions, K passages per question, R rows per context, S context tokens,
T tokens of the answers including the start token, V vocabulary, H size of a hidden state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import Cache

from ragweave.errors import MissingContextError
from ragweave.marginalization import group_by_question, target_log_probs
from ragweave.modeling.parts import longest_context

# The minimum number of tokens in a group of contexts that is encoded together. Fewer leave the device idle. On a CPU,
# more are slower: the activations exceed its caches (docs/performance.md).
MIN_GROUP_TOKENS = {"cpu": 512}
DEFAULT_MIN_GROUP_TOKENS = 2**15


@dataclass
class EncodedContexts:
    """B*K contexts that the generator has encoded.

    Attributes:
        attention_mask: Mask of the contexts, (B*K, S).
        last_hidden_state: Encoder states of a seq2seq generator, (B*K, S, H).
        hidden_states: The encoder's hidden states layer by layer, with ``output_hidden_states``.
        attentions: The encoder's attentions layer by layer, with ``output_attentions``.
        input_ids: The contexts of a causal generator, (B*K, S).
        prompt_cache: Keys and values of a causal generator's prompt without its last token.
        strength: PCED's beta, (B, K), once the first token of the answers is known.
    """

    attention_mask: Tensor
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    input_ids: Tensor | None = None
    prompt_cache: Cache | None = None
    strength: Tensor | None = None
    _repeated: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.attention_mask.shape[0]

    def repeated_states(self, times: int) -> tuple[Tensor, Tensor]:
        """Encoder states and mask for R rows per context, (B*K*R, S, H) and (B*K*R, S); computed once."""
        if self.last_hidden_state is None:
            raise MissingContextError("Contexts of a causal generator have no encoder states.")
        if times == 1:
            return self.last_hidden_state, self.attention_mask
        if times not in self._repeated:
            self._repeated[times] = (
                self.last_hidden_state.repeat_interleave(times, dim=0),
                self.attention_mask.repeat_interleave(times, dim=0),
            )
        return self._repeated[times]


def trim_right(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cut the columns on the right that are padding in every row of contexts and mask, (B*K, S).

    They take time and do not change results. Left padding stays, because models with absolute positions count it.
    """
    longest = longest_context(attention_mask)
    return input_ids[:, :longest], attention_mask[:, :longest]


def length_groups(lengths: Tensor, *, whole: bool = False) -> list[Tensor]:
    """Group contexts of similar length that are encoded together.

    Args:
        lengths: How many columns each context needs, (B*K,).
        whole: Make one group.

    Returns:
        Indices of rows, the longest contexts first, in the smallest groups that keep the device busy; a single group
        is in the order of the rows.
    """
    rows = len(lengths)
    single = torch.arange(rows, device=lengths.device)
    if whole:
        return [single]
    minimum = MIN_GROUP_TOKENS.get(lengths.device.type, DEFAULT_MIN_GROUP_TOKENS)
    order = lengths.argsort(descending=True, stable=True)
    groups, begin, tokens = [], 0, 0
    for row, length in enumerate(lengths[order].tolist(), start=1):
        tokens += length
        if tokens >= minimum and row < rows:
            groups.append(order[begin:row])
            begin, tokens = row, 0
    groups.append(order[begin:])
    return groups if len(groups) > 1 else [single]


def context_ends(attention_mask: Tensor) -> Tensor:
    """One more than the last column in which each context has a token, (B*K,)."""
    positions = torch.arange(1, attention_mask.shape[1] + 1, device=attention_mask.device)
    return (attention_mask.ne(0) * positions).amax(1)


def align_right(input_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with their real tokens at the right end; S is that of the longest, 2 at least."""
    if mask.shape[1] == 1:  # before the last token there has to be a prompt, if only of padding
        input_ids, mask = pad(input_ids, (1, 0)), pad(mask, (1, 0))
    order = mask.ne(0).to(torch.uint8).argsort(dim=1, stable=True)
    length = max(int(mask.ne(0).sum(1).max()), 2)
    return input_ids.gather(1, order)[:, -length:], mask.gather(1, order)[:, -length:]


def token_positions(mask: Tensor) -> Tensor:
    """Positions that count real tokens only, (B*K, S)."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


@dataclass(frozen=True)
class Mixture:
    """B*K encoded contexts and the passages' scores, (B, K)."""

    contexts: EncodedContexts
    doc_scores: Tensor


class TokenScores:
    """Records log p(y_t | x, z, y_<t) of the tokens that are chosen, and leaves the model out where it has no choice.

    Extractive decoding allows a single token inside most words of several tokens. If that is so in every row, the
    step needs no model: the next one that does reads all tokens that it has not read, in one call.

    Args:
        allowed: The search's ``prefix_allowed_tokens_fn``, if it has one.
    """

    def __init__(self, allowed: Callable[[int, Tensor], list[int]] | None) -> None:
        self._allowed = allowed
        self._read = 0  # tokens that the model has read
        self._next_logits: Tensor | None = None  # behind the last of them, (B, K, 1, V)
        self._log_probs: list[Tensor] = []  # (B, K, any)

    def skipped_logits(self, token_ids: Tensor) -> Tensor | None:
        """Any logits, (B, 1, V), if only one token may follow each of B rows, (B, T); else ``None``."""
        if self._next_logits is None or self._allowed is None:
            return None
        if any(len(self._allowed(row, ids)) > 1 for row, ids in enumerate(token_ids)):
            return None
        return self._next_logits.new_zeros(len(token_ids), 1, self._next_logits.shape[-1])

    def unread(self, token_ids: Tensor) -> Tensor:
        """The tokens that the model has to read, of all tokens so far, (B, T)."""
        return token_ids[:, self._read :]

    def record(self, token_ids: Tensor, logits: Tensor) -> None:
        """Take the logits of the unread ones, (B*K, any, V), of all tokens so far, (B, T)."""
        grouped = group_by_question(logits, logits.shape[0] // len(token_ids))  # (B, K, any, V)
        if self._next_logits is not None:
            following = token_ids[:, self._read : self._read + 1]
            self._log_probs.append(target_log_probs(self._next_logits, following))
        if grouped.shape[2] > 1:
            self._log_probs.append(target_log_probs(grouped[:, :, :-1], token_ids[:, self._read + 1 :]))
        self._read, self._next_logits = token_ids.shape[1], grouped[:, :, -1:]

    def log_probs(self, sequences: Tensor) -> Tensor:
        """Log-probabilities of all tokens but the first, (B, K, T-1), of answers, (B, T); NaN if unknown."""
        known = list(self._log_probs)
        if self._next_logits is not None:
            known.append(target_log_probs(self._next_logits, sequences[:, self._read : self._read + 1]))
        result = torch.cat(known, dim=-1)[..., : sequences.shape[1] - 1]
        return pad(result, (0, sequences.shape[1] - 1 - result.shape[-1]), value=float("nan"))


@dataclass(frozen=True)
class RecordedMixture(Mixture):
    """A mixture whose search, which has no beams, is recorded."""

    token_scores: TokenScores
