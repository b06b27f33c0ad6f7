"""Which passages an answer came from: posteriors over passages, per answer and per token.

Notation used for tensor shapes
    B questions, K passages per question, T answer tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ragweave.marginalization import (
    answer_posterior,
    prefix_posteriors,
    scored_positions,
    sequence_log_likelihood,
    sequence_posterior,
    target_log_probs,
    token_log_likelihood,
    token_posteriors,
)
from ragweave.modeling.contexts import EncodedContexts
from ragweave.modeling.generation import RagForGeneration
from ragweave.modeling.generators import DecodeOptions
from ragweave.modeling.token import RagTokenForGeneration


@dataclass(frozen=True)
class Provenance:
    """How much each passage counted for B answers.

    Attributes:
        log_likelihood: log p(y|x) under the model's formulation, (B,).
        posterior: p(z | x, y), (B, K). RAG-Sequence: the passage that explains the whole answer. RAG-Token,
            which draws a passage for every token: the mean of the tokens' posteriors. Rows sum to one.
        token_posteriors: p(z | x, y_<=t), (B, K, T).
        scored: Which tokens belong to the answer, bool, (B, T).
    """

    log_likelihood: Tensor
    posterior: Tensor
    token_posteriors: Tensor
    scored: Tensor


@torch.no_grad()
def explain(
    model: RagForGeneration, contexts: EncodedContexts, doc_scores: Tensor, sequences: Tensor
) -> Provenance:
    """Compute where B answers came from, in one pass of the decoder over the contexts they were generated from.

    Args:
        model: The model that answered.
        contexts: B*K encoded contexts.
        doc_scores: Scaled passage scores, (B, K).
        sequences: The answers as `generate` returned them, (B, 1+T), start token first.

    Returns:
        The provenance.
    """
    n_questions, n_docs = doc_scores.shape
    targets = sequences[:, 1:]
    scored = _scored(model, targets)
    rows = sequences.repeat_interleave(n_docs, dim=0)  # (B*K, 1+T)
    # Answers are padded to the longest. Logits of padding over a large vocabulary would be wasted work.
    positions = scored.repeat_interleave(n_docs, dim=0)  # (B*K, T)
    logits = model.rag.wrapped_generator.decode(
        contexts, rows[:, :-1], options=DecodeOptions(logits_at=positions)
    ).logits  # (1, M, V)
    values = target_log_probs(logits[:, None], rows[:, 1:][positions][None])  # (1, 1, M)
    log_probs = values.new_zeros(positions.shape)
    log_probs[positions] = values.flatten()
    log_probs = log_probs.view(n_questions, n_docs, -1)  # (B, K, T), 0 on padding
    per_token = token_posteriors(log_probs, doc_scores)
    if isinstance(model, RagTokenForGeneration):
        likelihood = token_log_likelihood(log_probs, scored, doc_scores)
        posterior = answer_posterior(per_token, scored)
    else:
        likelihood = sequence_log_likelihood(log_probs, scored, doc_scores)
        posterior = sequence_posterior(log_probs, scored, doc_scores)
        per_token = prefix_posteriors(log_probs, scored, doc_scores)
    return Provenance(likelihood, posterior, per_token, scored)


def _scored(model: RagForGeneration, targets: Tensor) -> Tensor:
    """Which generated tokens belong to the answers, bool, (B, T): all up to the first end token."""
    scored = scored_positions(targets, model.rag.special_tokens.pad, model.rag.special_tokens.eos)
    # Models without a padding token pad with another one, and some models have several end tokens.
    if not model.end_token_ids:
        return scored
    is_end = torch.isin(targets, torch.tensor(model.end_token_ids, device=targets.device)).long()
    return scored & (is_end.cumsum(-1) - is_end == 0)
