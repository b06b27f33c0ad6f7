"""Log-probabilities that a search without beams computes anyway, and tokens that need no step of their own.

Notation used for tensor shapes
    B questions, K passages per question, T tokens of the answers including the start token, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from ragweave.marginalization import group_by_question, target_log_probs


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
