"""RAG-Sequence's hypotheses: what each passage's search proposed, gathered per question.

Notation used for tensor shapes
    B questions, K passages per question, R hypotheses per passage, C distinct hypotheses per question,
    T tokens including the start token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ragweave.modeling.proposals import collect_proposals


@dataclass(frozen=True)
class Hypotheses:
    """Hypotheses of B questions, padded to the largest C.

    Attributes:
        token_ids: (B, C, T), padded on the right.
        lengths: Number of tokens of each, start token included, (B, C); 0 where there is none.
        proposal: Which of passage k's R proposals hypothesis c is, (B, K, C); -1 where k did not propose it.
    """

    token_ids: Tensor
    lengths: Tensor
    proposal: Tensor

    @property
    def exists(self) -> Tensor:
        """Which hypotheses are there, bool, (B, C)."""
        return self.lengths > 0

    def of_proposals(self, values: Tensor) -> Tensor:
        """Values of every passage's proposals, (B*K, R, T-1), as values of hypotheses, (B, K, C, T-1).

        Those of hypotheses that a passage did not propose are NaN.
        """
        n_questions, n_docs = self.proposal.shape[:2]
        rows = self.proposal.clamp(min=0)[..., None].expand(-1, -1, -1, values.shape[-1])
        found = values.view(n_questions, n_docs, -1, values.shape[-1]).gather(2, rows)
        return found.masked_fill(self.proposal[..., None] < 0, float("nan"))


def collect(
    sequences: Tensor,
    has_passage: Tensor,
    pad_token_id: int,
    ends: Sequence[int],
    *,
    deduplicate: bool,
) -> Hypotheses:
    """Gather the hypotheses of each question, equal ones once where asked for, in the order of proposal.

    Args:
        sequences: Token ids, (B*K*R, T).
        has_passage: Which passages are there, bool, (B, K); the others propose nothing.
        pad_token_id: What fills sequences up.
        ends: The tokens that end them.
        deduplicate: Keep equal hypotheses of a question once.

    Returns:
        The hypotheses.
    """
    rows = sequences.view(*has_passage.shape, -1, sequences.shape[-1])  # (B, K, R, T)
    proposals = collect_proposals(
        rows.tolist(), has_passage.tolist(), pad_token_id, ends, deduplicate=deduplicate
    )
    return Hypotheses(*(torch.from_numpy(array).to(sequences.device) for array in proposals))


def best_per_question(
    hypotheses: Hypotheses, scores: Tensor, wanted: int, pad_token_id: int
) -> tuple[Tensor, Tensor]:
    """The best hypotheses of each question.

    Args:
        hypotheses: The hypotheses.
        scores: Log p(y|x), (B, C); -inf where there is none.
        wanted: How many per question.
        pad_token_id: What fills rows up.

    Returns:
        Token ids, (B*wanted, T), best first, T the longest of them, and their scores, (B*wanted,). Where a
        question has fewer hypotheses, rows of padding with a score of -inf stand for the missing ones.
    """
    lacking = max(wanted - scores.shape[1], 0)
    scores = pad(scores, (0, lacking), value=float("-inf"))
    best = scores.topk(wanted, dim=1)
    lengths = pad(hypotheses.lengths, (0, lacking)).gather(1, best.indices)  # (B, wanted)
    token_ids = pad(hypotheses.token_ids, (0, 0, 0, lacking), value=pad_token_id)
    rows = token_ids.gather(1, best.indices[..., None].expand(-1, -1, token_ids.shape[-1]))
    return rows.flatten(0, 1)[:, : int(lengths.max())], best.values.flatten()
