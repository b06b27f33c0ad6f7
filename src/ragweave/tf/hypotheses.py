"""RAG-Sequence's hypotheses: what each passage's search proposed, gathered per question, and their scores.

It is to be read beside `ragweave.modeling.hypotheses`, and needs numpy alone.

Notation used for array shapes
    B questions, K passages per question, R hypotheses per passage, C distinct hypotheses per question, T tokens with
    the start token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragweave.modeling.proposals import _of_question as proposals
from ragweave.tf.options import Ids, Scores, SearchOptions
from ragweave.tf.search import Answer


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """Hypotheses of B questions.

    Attributes:
        tokens: Those of each question, in the order of proposal.
        log_probs: Log-probabilities of their tokens but the first under every passage, (B, K, C, T-1); -inf under
            passages that did not propose them. What lies behind an end may be anything.
        has_passage: Which passages are there, bool, (B, K).
    """

    tokens: list[list[tuple[int, ...]]]
    log_probs: Scores
    has_passage: NDArray[np.bool_]

    def padded(self, pad: int) -> Ids:
        """Their tokens, (B, C, T)."""
        n_questions, _, count, length = self.log_probs.shape
        filled = np.full((n_questions, count, length + 1), pad, dtype=np.int64)
        for question, own in enumerate(self.tokens):
            for number, tokens in enumerate(own):
                filled[question, number, : len(tokens)] = tokens
        return filled


def collect(
    found: Sequence[Sequence[Answer]],
    has_passage: NDArray[np.bool_],
    options: SearchOptions,
    *,
    deduplicate: bool,
) -> Hypotheses:
    """Gather the hypotheses of each question, equal ones once where asked for, in the order of proposal.

    Args:
        found: What B*K searches found.
        has_passage: Which passages are there, bool, (B, K); the others propose nothing.
        options: How they were found.
        deduplicate: Keep equal hypotheses of a question once.
    """
    n_questions, n_docs = has_passage.shape
    gathered = [
        proposals(
            [[list(answer.tokens) for answer in own] for own in found[start : start + n_docs]],
            real,
            options.pad,
            options.ends,
            deduplicate=deduplicate,
        )
        for start, real in zip(range(0, len(found), n_docs), has_passage.tolist(), strict=True)
    ]
    count = max(1, *(len(own) for own in gathered))
    longest = max((len(tokens) for own in gathered for tokens, _ in own), default=2)
    log_probs = np.full((n_questions, n_docs, count, longest - 1), -np.inf, dtype=np.float32)
    for question, own in enumerate(gathered):
        for number, (tokens, places) in enumerate(own):
            for passage, place in places.items():
                said = found[question * n_docs + passage][place].log_probs[: len(tokens) - 1]
                log_probs[question, passage, number, : len(said)] = said
    return Hypotheses([[tokens for tokens, _ in own] for own in gathered], log_probs, has_passage)


def ranked(
    hypotheses: Hypotheses, priors: Scores, wanted: int, *, bos: int | None = None
) -> list[list[Answer]]:
    """The best hypotheses of each question by log p(y|x) = log sum_z p(z|x) p(y|x,z).

    A BOS token that begins all hypotheses of a question says nothing and is left out, as in transformers.

    Args:
        hypotheses: The hypotheses.
        priors: Log p(z|x), (B, K).
        wanted: How many per question.
        bos: The BOS token.
    """
    answers = []
    for question, own in enumerate(hypotheses.tokens):
        first = int(bool(own) and bos is not None and all(tokens[1] == bos for tokens in own))
        scored = []
        for number, tokens in enumerate(own):
            said = hypotheses.log_probs[question, :, number, first : len(tokens) - 1]  # (K, tokens)
            joint = np.where(hypotheses.has_passage[question], said.sum(-1) + priors[question], -np.inf)
            highest = joint.max()
            total = highest + np.log(np.exp(joint - highest).sum()) if np.isfinite(highest) else highest
            scored.append(Answer(tokens, (), float(total)))
        answers.append(sorted(scored, key=lambda answer: -answer.score)[:wanted])
    return answers
