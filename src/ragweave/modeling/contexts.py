"""Contexts before and after the generator encodes them, and the mixtures of them that a search decodes.

Notation used for tensor shapes: B questions, K passages per question, R rows per context, S context tokens,
T tokens of the answers including the start token, V vocabulary, H size of a hidden state.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from typing import Any

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
        prompt_cache: Keys and values of a causal generator's prompt, without its last token if there are no
            ``first_logits``.
        first_logits: A causal generator's logits of the answers' first tokens, (B*K, 1, V).
        strength: PCED's beta, (B, K), once the first token of the answers is known.
    """

    attention_mask: Tensor
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    input_ids: Tensor | None = None
    prompt_cache: Cache | None = None
    strength: Tensor | None = None
    first_logits: Tensor | None = None
    _repeated: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.attention_mask.shape[0]

    def select(self, rows: Tensor) -> EncodedContexts:
        """Some of the contexts, for a cache that has been filled from all of them."""
        states, ids = (
            None if part is None else part[rows] for part in (self.last_hidden_state, self.input_ids)
        )
        return EncodedContexts(self.attention_mask[rows], last_hidden_state=states, input_ids=ids)

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
    """Rows with their real tokens at the right end; S is that of the longest, at least 2."""
    if mask.shape[1] == 1:  # before the last token there must be a prompt, if only of padding
        input_ids, mask = pad(input_ids, (1, 0)), pad(mask, (1, 0))
    order = mask.ne(0).to(torch.uint8).argsort(dim=1, stable=True)
    length = max(int(mask.ne(0).sum(1).max()), 2)
    return input_ids.gather(1, order)[:, -length:], mask.gather(1, order)[:, -length:]


def token_positions(mask: Tensor) -> Tensor:
    """Positions that count real tokens only, (B*K, S)."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


@cache  # called at every step
def takes_position_ids(forward: Callable[..., Any]) -> bool:
    """Whether a generator's ``forward`` has an argument for positions."""
    return "position_ids" in inspect.signature(forward).parameters


@dataclass(frozen=True)
class Mixture:
    """B*K encoded contexts and the passages' scores, (B, K)."""

    contexts: EncodedContexts
    doc_scores: Tensor

    def select(self, questions: list[int]) -> Mixture:
        """The mixtures of some questions."""
        n_docs = self.doc_scores.shape[1]
        rows = torch.arange(len(self.contexts), device=self.doc_scores.device).view(-1, n_docs)
        return Mixture(self.contexts.select(rows[questions].flatten()), self.doc_scores[questions])


# How many tokens of all contexts pass through the model with a draft, and of one answer. Up to these limits, most of
# the time goes into reading the weights, so that many tokens take little longer than one.
DRAFTED_TOKENS = {torch.float32: 48}
DEFAULT_DRAFTED_TOKENS = 256
LONGEST_DRAFT = 6


@dataclass
class _Answer:
    """The tokens of one answer that the model has read.

    Attributes:
        tokens: The tokens. The last of them may be a draft that is not chosen yet.
        columns: Their positions in the cache.
        logits: The logits after them, (K, any, V), except those whose ``log_probs`` are recorded.
        log_probs: Log p(y_t | x, z, y_<t) of chosen tokens, (K, any) each.
        scored: How many these are.
    """

    tokens: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    log_probs: list[Tensor] = field(default_factory=list)
    scored: int = 0


class TokenScores:
    """Records log p(y_t | x, z, y_<t) of the tokens that are chosen, and calls the model as rarely as possible.

    Inside most words of several tokens, extractive decoding allows a single token. If this holds in every row, the
    step skips the model; the next step that needs it passes all unread tokens in one call, and after them a draft:
    the continuation in the passage. As long as the draft's tokens are chosen, their logits are known. The rest of a
    draft stays in the cache, hidden by the mask. When half of the answers have ended, the model continues without
    them.

    Args:
        allowed: The search's ``prefix_allowed_tokens_fn``, if it has one.
        draft: A guess of what follows the tokens of an answer, given its number. Without one, the model reads the
            same number of tokens in every row.
        ends: The tokens that end answers.

    Attributes:
        mixture: The part that the model still reads; ``None`` before an answer has been left out.
        doc_scores: The passages' scores as the model last returned them, (B, K).
    """

    def __init__(
        self,
        allowed: Callable[[int, Tensor], list[int]] | None,
        draft: Callable[[int, Sequence[int]], Sequence[int]] | None = None,
        ends: Sequence[int] = (),
    ) -> None:
        self._allowed, self._draft, self._ends = allowed, draft, frozenset(ends)
        self._answers: list[_Answer] = []
        self._rows: list[int] = []  # the answers that the model still reads
        self._fed: list[list[int]] = []  # the tokens of these that it reads now
        self._seen = torch.empty(0)  # the mask of all columns
        self.mixture: Mixture | None = None
        self.doc_scores = torch.empty(0)

    def known_logits(self, token_ids: Tensor) -> Tensor | None:
        """Logits of the next token of B answers, (B*K, 1, V), if the model has read the tokens that they depend on.

        Answers that have ended, or that only one token may follow, have arbitrary logits.
        """
        if not self._answers:
            return None
        logits = []
        for number, (answer, ids) in enumerate(zip(self._answers, token_ids, strict=True)):
            chosen = ids.tolist()
            self._settle(number, chosen)
            if len(answer.tokens) >= len(chosen):
                logits.append(answer.logits[:, :1])
            elif not self._has_ended(chosen) and (
                self._allowed is None or len(self._allowed(number, ids)) > 1
            ):
                return None
            else:
                logits.append(answer.logits.new_zeros(len(answer.logits), 1, answer.logits.shape[-1]))
        return torch.cat(logits)

    def leave_out_ended(self, token_ids: Tensor, mixture: Mixture) -> list[int] | None:
        """Continue without the answers that have ended, if these are half of those that the model reads.

        Returns:
            The rows of the other answers; ``None`` if nothing changes.
        """
        going_on = []
        for row, number in enumerate(self._rows):
            chosen = token_ids[number].tolist()
            self._settle(number, chosen)
            if not self._has_ended(chosen) or len(self._answers[number].tokens) < self._length(chosen):
                going_on.append(row)
        if not 0 < 2 * len(going_on) <= len(self._rows):
            return None
        self._rows = [self._rows[row] for row in going_on]
        self._seen = self._seen[going_on]
        self.mixture = (self.mixture or mixture).select(going_on)
        return going_on

    def _has_ended(self, chosen: list[int]) -> bool:
        return self._length(chosen) < len(chosen)

    def _length(self, chosen: list[int]) -> int:
        """How many tokens precede the end."""
        return 1 + sum(1 for _ in takewhile(lambda token: token not in self._ends, chosen[1:]))

    def _settle(self, number: int, chosen: list[int]) -> None:
        """Record the log-probabilities of newly chosen tokens, and drop a draft that was rejected."""
        answer = self._answers[number]
        common = sum(
            1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(answer.tokens, chosen, strict=False))
        )
        fresh = min(common, len(chosen) - 1) - answer.scored
        if fresh > 0:
            targets = torch.tensor([chosen[answer.scored + 1 :][:fresh]], device=answer.logits.device)
            answer.log_probs.append(target_log_probs(answer.logits[None, :, :fresh], targets)[0])
            answer.logits = answer.logits[:, fresh:]
            answer.scored += fresh
        if common < min(len(answer.tokens), len(chosen)):
            self._seen[self._rows.index(number), answer.columns[common:]] = 0
            del answer.tokens[common:], answer.columns[common:]
            answer.logits = answer.logits[:, :0]

    def unread(
        self, token_ids: Tensor, n_docs: int, dtype: torch.dtype, *, last: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The unread tokens, (B', any), and the mask of these and all earlier ones, for the answers still in use.

        Args:
            token_ids: The tokens so far, (B, T).
            n_docs: K.
            dtype: The type that the model computes in.
            last: Whether nothing follows, so that a draft is useless.
        """
        if not self._answers:
            self._answers = [_Answer() for _ in token_ids]
            self._rows = list(range(len(token_ids)))
            self._seen = token_ids.new_ones(len(token_ids), 0)
        room = DRAFTED_TOKENS.get(dtype, DEFAULT_DRAFTED_TOKENS) // (len(self._rows) * n_docs) - 1
        room = max(0, min(room, LONGEST_DRAFT))
        self._fed = []
        for number in self._rows:
            answer, chosen = self._answers[number], token_ids[number].tolist()
            if self._draft is None:
                self._fed.append(chosen[len(answer.tokens) :])
                continue
            self._settle(number, chosen)
            fed = chosen[len(answer.tokens) : self._length(chosen)]
            if not last and not self._has_ended(chosen):
                tokens = answer.tokens + fed
                fed += self._draft(number, tokens)[: max(0, room + len(chosen) - len(tokens))]
            self._fed.append(fed)
        longest = max(map(len, self._fed))
        padded = [[*fed, *[0] * (longest - len(fed))] for fed in self._fed]
        mask = [[1] * len(fed) + [0] * (longest - len(fed)) for fed in self._fed]
        self._seen = torch.cat([self._seen, self._seen.new_tensor(mask).view(len(mask), longest)], dim=1)
        return token_ids.new_tensor(padded).view(len(mask), longest), self._seen

    def record(self, logits: Tensor, doc_scores: Tensor) -> None:
        """Record the logits of the tokens from `unread`, (B'*K, any, V), and the model's passage scores, (B', K).

        The scores may differ from those given to the model: a subclass of `RagModel` may change them.
        """
        self.doc_scores = (
            doc_scores
            if len(self._rows) == len(self._answers)
            else self.doc_scores.index_copy(0, self._seen.new_tensor(self._rows), doc_scores)
        )
        grouped = group_by_question(logits, doc_scores.shape[1])  # (B', K, any, V)
        first = self._seen.shape[1] - logits.shape[1]
        for number, fed, read in zip(self._rows, self._fed, grouped, strict=True):
            answer, read = self._answers[number], read[:, : len(fed)]
            answer.logits = torch.cat([answer.logits, read], dim=1) if answer.tokens else read
            answer.tokens += fed
            answer.columns += range(first, first + len(fed))

    def log_probs(self, sequences: Tensor) -> Tensor:
        """Log-probabilities of all tokens but the first, (B, K, T-1), of answers, (B, T); NaN if unknown."""
        result = []
        for number, chosen in enumerate(sequences.tolist()):
            self._settle(number, chosen)
            known = torch.cat(self._answers[number].log_probs, dim=-1)[:, : len(chosen) - 1]
            result.append(pad(known, (0, len(chosen) - 1 - known.shape[-1]), value=float("nan")))
        return torch.stack(result)


@dataclass(frozen=True)
class RecordedMixture(Mixture):
    """A mixture whose search, which has no beams, is recorded."""

    token_scores: TokenScores
