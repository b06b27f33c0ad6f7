"""What a search computes on its way, kept: the log-probabilities of the tokens of the hypotheses it returns.

Notation used for tensor shapes
    N searches side by side, R beams (or samples) of each, S sequences returned by each, T tokens with the start
    token, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor


@dataclass(frozen=True)
class _Step:
    """The beams when they have t tokens.

    Attributes:
        parent: Which of the beams with one token less each continues, (N, R); the first of several equal ones,
            -1 where there is none.
        token: Its last token, (N, R).
        log_prob: The log-probability of that token, (N, R).
        of_ends: The log-probability of ending next, by each of the end tokens, (N, R, number of them).
    """

    parent: Tensor
    token: Tensor
    log_prob: Tensor
    of_ends: Tensor


class SearchScores(LogitsProcessor):
    """Listens to a search of transformers; changes nothing.

    It has to see scores before any processor that changes them, so it goes first.

    Args:
        n_searches: N.
        normalised: Whether the search hands over log-probabilities (beam search does), not logits.
        ends: The end tokens.
        copy: Whether processors may write into the scores that they are given.
    """

    def __init__(self, n_searches: int, *, normalised: bool, ends: Sequence[int], copy: bool) -> None:
        self._n_searches = n_searches
        self._normalised = normalised
        self._ends = list(ends)
        self._copy = copy
        self._steps: list[_Step] = []
        self._first_length = 0
        self._ids: Tensor | None = None  # of the last step, (N, R, t)
        self._scores: Tensor | None = None  # of the last step, (N, R, V)
        self._normaliser: Tensor | None = None  # of the last step, (N, R)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Note what the beams are, (N*R, t), and what may follow them, (N*R, V)."""
        ids = input_ids.view(self._n_searches, -1, input_ids.shape[-1]).clone()
        if self._ids is None or ids.shape[-1] != self._ids.shape[-1] + 1:
            self._steps, self._first_length = [], ids.shape[-1]
            parent = torch.zeros_like(ids[..., 0])
            log_prob = scores.new_full(parent.shape, float("nan"))
        else:
            same = (ids[:, :, None, :-1] == self._ids[:, None]).all(-1)  # (N, R, R)
            parent = same.to(torch.uint8).argmax(-1)
            log_prob = self._log_prob(parent, ids[..., -1])
            parent = parent.masked_fill(~same.any(-1), -1)
        own = scores.view(*parent.shape, -1)
        self._ids = ids
        self._scores = own.clone() if self._copy else own
        self._normaliser = None if self._normalised else own.logsumexp(-1)
        of_ends = own[..., self._ends]
        if self._normaliser is not None:
            of_ends = of_ends - self._normaliser[..., None]
        self._steps.append(_Step(parent, ids[..., -1], log_prob, of_ends))
        return scores

    def log_probs(self, sequences: Tensor) -> Tensor:
        """Log-probabilities of the tokens of hypotheses that the search returned.

        Args:
            sequences: Token ids, (N*S, T).

        Returns:
            Log-probabilities of all tokens but the first, (N, S, T-1); NaN for those that are not known: given
            to the search instead of found by it, or behind the end.
        """
        tokens = sequences.view(self._n_searches, -1, sequences.shape[-1])  # (N, S, T)
        found = torch.full(
            (*tokens.shape[:2], tokens.shape[2] - 1), float("nan"), device=tokens.device, dtype=torch.float32
        )
        if self._scores is None:
            return found
        beam = torch.zeros_like(tokens[..., 0])  # the beam that a sequence is, so far; -1 for none
        for number, step in enumerate(self._steps):
            position = self._first_length + number
            if position >= tokens.shape[-1]:
                break
            token = tokens[..., position]
            place = beam.clamp(min=0)
            known = torch.full_like(found[..., 0], float("nan"))
            for end, log_prob in zip(self._ends, step.of_ends.unbind(-1), strict=True):
                known = torch.where(token == end, log_prob.gather(1, place), known)
            if number + 1 == len(self._steps):
                known, following = self._log_prob(place, token), torch.full_like(beam, -1)
            else:
                then = self._steps[number + 1]
                matches = (then.parent[:, None] == beam[..., None]) & (
                    then.token[:, None] == token[..., None]
                )
                following = matches.to(torch.uint8).argmax(-1)  # (N, S)
                continued = matches.any(-1)
                known = torch.where(continued, then.log_prob.gather(1, following), known)
                following = following.masked_fill(~continued, -1)
            found[..., position - 1] = known.masked_fill(beam < 0, float("nan"))
            beam = following
        return found

    def _log_prob(self, beam: Tensor, token: Tensor) -> Tensor:
        """Log-probability of a token after a beam of the last step, both (N, any)."""
        if self._scores is None:
            raise RuntimeError("The search has not begun.")
        vocabulary = self._scores.shape[-1]
        chosen = self._scores.flatten(1).gather(1, beam * vocabulary + token)
        return chosen if self._normaliser is None else chosen - self._normaliser.gather(1, beam)
