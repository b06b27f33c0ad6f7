"""The equations of Lewis et al. 2020 (arXiv 2005.11401, section 2) as pure functions of tensors.

No other module implements them: training, decoding, provenance and evaluation call these functions. The last two
are PCED's (Corallo and Papotti 2026, arXiv 2601.08670), a rule to choose the next token without a mixture.

Notation used for tensor shapes
    B questions, K passages per question, T target tokens, V vocabulary.
    Generators return flat logits, (B*K, T, V), with the passages of a question next to each other.

With x the question, z a passage and y the answer:

    p(z|x)     = softmax_K(s · doc_scores)                               (retriever, section 2.2)
    Sequence:  p(y|x) = sum_z p(z|x) prod_t p(y_t | x, z, y_<t)          (section 2.1)
    Token:     p(y|x) = prod_t sum_z p(z|x) p(y_t | x, z, y_<t)          (section 2.1)

A passage that does not exist (fewer hits than K) has the score -inf. Its probability is zero, whatever the
generator's logits are, and no gradient passes through it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ragweave.errors import ShapeError

# Sums over the vocabulary without gradient take this many elements at once, which fit into a CPU's cache.
SLICE = {"cpu": 2**19}
DEFAULT_SLICE = 2**26

PCED_GAMMA = 2.5
"""Weight of the passages' relevance in PCED, as in the paper."""


def passage_log_probs(doc_scores: Tensor) -> Tensor:
    """The retriever's log p(z|x), (B, K), in float32 or better, from scaled scores, (B, K); -inf for no passage."""
    return torch.log_softmax(doc_scores, dim=-1, dtype=_accumulation_dtype(doc_scores))


def group_by_question(flat: Tensor, n_docs: int) -> Tensor:
    """Restore the passage dimension of flat rows: (B*K, ...) to (B, K, ...).

    Raises:
        ShapeError: The number of rows is not a multiple of ``n_docs``.
    """
    if flat.shape[0] % n_docs:
        raise ShapeError(
            f"seq_logits has {flat.shape[0]} rows, which is not a multiple of n_docs={n_docs}; "
            "give K rows for every question."
        )
    return flat.view(flat.shape[0] // n_docs, n_docs, *flat.shape[1:])  # (B, K, ...)


def token_log_marginals(logits: Tensor, doc_scores: Tensor) -> Tensor:
    """RAG-Token's next-token distribution, log sum_z p(z|x) p(v | x, z, y_<t): (B, K, T, V) to (B, T, V)."""
    if logits.shape[1] == 1:
        return torch.log_softmax(logits[:, 0], dim=-1, dtype=_accumulation_dtype(logits))
    # Prior and normaliser are one number per passage and token. Added to the logits, they give the joint
    # log-probabilities in one pass, and log p(v | x, z, y_<t) is never stored.
    shift = (passage_log_probs(doc_scores)[:, :, None] - _log_normaliser(logits))[..., None]  # (B, K, T, 1)
    if _has_gradient(logits, doc_scores):
        return torch.logsumexp(logits.to(shift.dtype) + shift, dim=1)
    marginals = shift.new_empty(logits.shape[0], *logits.shape[2:])
    for part, out in zip(_slices(logits), _slices(marginals, like=logits), strict=True):
        torch.logsumexp(part.to(shift.dtype) + shift, dim=1, out=out)
    return marginals


def target_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Log p(y_t | x, z, y_<t), (B, K, T), of target tokens, (B, T), from the generator's logits, (B, K, T, V).

    No (B, K, T, V) copy of log-probabilities is made. The ids of tokens that are not scored may be negative.
    """
    index = targets.clamp(min=0)[:, None, :, None].expand(-1, logits.shape[1], -1, 1)  # (B, K, T, 1)
    chosen = logits.gather(-1, index).squeeze(-1).to(_accumulation_dtype(logits))  # (B, K, T)
    return chosen - _log_normaliser(logits)


def sequence_log_joint(token_log_probs: Tensor, scored: Tensor, doc_scores: Tensor) -> Tensor:
    """Log p(z|x) p(y|x,z): RAG-Sequence's terms before they are summed over passages.

    Args:
        token_log_probs: Log p(y_t | x, z, y_<t), (B, K, T).
        scored: Which target tokens count, bool, (B, T).
        doc_scores: Scaled passage scores, (B, K).

    Returns:
        Joint log-probabilities, (B, K).
    """
    return token_log_probs.masked_fill(~scored[:, None], 0.0).sum(-1) + passage_log_probs(doc_scores)


def sequence_log_likelihood(token_log_probs: Tensor, scored: Tensor, doc_scores: Tensor) -> Tensor:
    """RAG-Sequence: log p(y|x), (B,). Arguments as for `sequence_log_joint`."""
    return torch.logsumexp(sequence_log_joint(token_log_probs, scored, doc_scores), dim=-1)


def token_log_likelihood(token_log_probs: Tensor, scored: Tensor, doc_scores: Tensor) -> Tensor:
    """RAG-Token: log p(y|x), (B,). Arguments as for `sequence_log_joint`."""
    per_token = torch.logsumexp(token_log_probs + passage_log_probs(doc_scores)[:, :, None], dim=1)  # (B, T)
    return per_token.masked_fill(~scored, 0.0).sum(-1)


def sequence_posterior(token_log_probs: Tensor, scored: Tensor, doc_scores: Tensor) -> Tensor:
    """Posterior p(z | x, y) under RAG-Sequence, (B, K): which passage explains the whole answer."""
    return torch.softmax(sequence_log_joint(token_log_probs, scored, doc_scores), dim=-1)


def token_posteriors(token_log_probs: Tensor, doc_scores: Tensor) -> Tensor:
    """Posterior p(z | x, y_<=t) of every token under RAG-Token, (B, K, T): which passage the token comes from.

    RAG-Token draws a new passage for each token, so the posterior of token t depends on y_<t only through the
    generator (figure 2 of the paper).
    """
    return torch.softmax(token_log_probs + passage_log_probs(doc_scores)[:, :, None], dim=1)


def prefix_posteriors(token_log_probs: Tensor, scored: Tensor, doc_scores: Tensor) -> Tensor:
    """Posterior p(z | x, y_<=t) under RAG-Sequence for every t, (B, K, T): the evidence of all tokens so far."""
    prefix_log_probs = token_log_probs.masked_fill(~scored[:, None], 0.0).cumsum(-1)
    return torch.softmax(prefix_log_probs + passage_log_probs(doc_scores)[:, :, None], dim=1)


def answer_posterior(posteriors: Tensor, scored: Tensor) -> Tensor:
    """Share of an answer that each passage accounts for under RAG-Token, (B, K): its mean posterior.

    ``posteriors`` are those of tokens, (B, K, T), and ``scored`` says which of these belong to the answer, bool, (B,
    T).
    """
    weight = scored.to(posteriors.dtype)
    return (posteriors * weight[:, None]).sum(-1) / weight.sum(-1, keepdim=True).clamp(min=1.0)


def token_nll(
    logits: Tensor, doc_scores: Tensor, targets: Tensor, scored: Tensor, epsilon: float = 0.0
) -> Tensor:
    """RAG-Token's loss per question, (B,): -log p(y|x), with label smoothing over the mixture.

    Args:
        logits: Generator logits, (B, K, T, V).
        doc_scores: Scaled passage scores, (B, K).
        targets: Token ids, (B, T).
        scored: Which targets count, bool, (B, T).
        epsilon: Label smoothing.
    """
    if epsilon == 0.0:
        return -token_log_likelihood(target_log_probs(logits, targets), scored, doc_scores)
    marginals = token_log_marginals(logits, doc_scores)  # (B, T, V)
    chosen = marginals.gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
    nll = -chosen.masked_fill(~scored, 0.0).sum(-1)
    smooth = -marginals.sum(-1).masked_fill(~scored, 0.0).sum(-1)
    return (1.0 - epsilon) * nll + epsilon / logits.shape[-1] * smooth


def sequence_nll(
    logits: Tensor, doc_scores: Tensor, targets: Tensor, scored: Tensor, epsilon: float = 0.0
) -> Tensor:
    """RAG-Sequence's loss per question, (B,): -log p(y|x), with label smoothing. Arguments as for `token_nll`.

    In the smoothing term, the log prior of a passage counts once for each token of the vocabulary, as in
    transformers' implementation.
    """
    nll = -sequence_log_likelihood(target_log_probs(logits, targets), scored, doc_scores)
    if epsilon == 0.0:
        return nll
    vocabulary = logits.shape[-1]
    total = logits.sum(-1, dtype=_accumulation_dtype(logits))  # (B, K, T)
    total = total - vocabulary * _log_normaliser(logits)
    per_passage = total.masked_fill(~scored[:, None], 0.0).sum(-1) + vocabulary * passage_log_probs(
        doc_scores
    )
    smooth = -torch.logsumexp(per_passage, dim=-1)
    return (1.0 - epsilon) * nll + epsilon / vocabulary * smooth


def contrast_strength(logits: Tensor) -> Tensor:
    """PCED's beta_k: how much passage k changes the next token, the divergence JSD(p(.|x,z_k), p(.|x)) in nats.

    Args:
        logits: Generator logits of one token, (B, K+1, V), the last of a context without passage.

    Returns:
        Strengths from 0 to log 2, (B, K).
    """
    log_probs = torch.log_softmax(logits, dim=-1, dtype=_accumulation_dtype(logits))
    passage, prior = log_probs[:, :-1], log_probs[:, -1:]
    middle = torch.logaddexp(passage, prior) - math.log(2)
    return 0.5 * (passage.exp() * (passage - middle) + prior.exp() * (prior - middle)).sum(-1)


def contrastive_scores(logits: Tensor, doc_scores: Tensor, strength: Tensor) -> Tensor:
    """PCED's score of each next token v: max_k (1 + beta_k) s_k(v) - beta_k s_0(v) + gamma log p(z_k|x).

    s_k are the logits under passage k, s_0 those without passage. The relevance that the paper calls r_k is p(z_k|x).

    Args:
        logits: Generator logits, (B, K+1, T, V), the last of a context without passage.
        doc_scores: Scaled passage scores, (B, K+1), the last -inf.
        strength: beta, (B, K), from `contrast_strength`.

    Returns:
        Scores, which are not log-probabilities, (B, T, V).
    """
    beta = strength[..., None, None]
    relevance = PCED_GAMMA * passage_log_probs(doc_scores)[:, :-1, None, None]
    return ((1 + beta) * logits[:, :-1] - beta * logits[:, -1:] + relevance).amax(1)


def scored_positions(target_ids: Tensor, pad_token_id: int | None, eos_token_id: int | None) -> Tensor:
    """Which targets are part of the answer, bool, (B, T): neither ignored (-100) nor padding.

    If a model pads with its end-of-sequence token (many causal ones do), the first one ends the answer and counts;
    later ones are padding.
    """
    scored = target_ids >= 0
    if pad_token_id is None:
        return scored
    is_pad = target_ids == pad_token_id
    if pad_token_id == eos_token_id:
        is_pad &= is_pad.cumsum(-1) > 1
    return scored & ~is_pad


def _log_normaliser(logits: Tensor) -> Tensor:
    """Log of the sum of exp(logits) over the vocabulary, (..., V) to (...)."""
    dtype = _accumulation_dtype(logits)
    if _has_gradient(logits):
        return torch.logsumexp(logits.to(dtype), dim=-1)
    parts = [torch.logsumexp(part.to(dtype), dim=-1) for part in _slices(logits)]
    return torch.stack(parts).logsumexp(0) if len(parts) > 1 else parts[0]


def _slices(tensor: Tensor, *, like: Tensor | None = None) -> tuple[Tensor, ...]:
    """Slices of (..., V) along the vocabulary, small enough for the CPU's cache; cut ``like`` another tensor."""
    reference = tensor if like is None else like
    rows = max(1, reference.numel() // reference.shape[-1])
    return tensor.split(max(1, SLICE.get(tensor.device.type, DEFAULT_SLICE) // rows), dim=-1)


def _has_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _accumulation_dtype(tensor: Tensor) -> torch.dtype:
    """Half precision is summed in float32; float32 and float64 in their own type."""
    return tensor.dtype if tensor.dtype in (torch.float32, torch.float64) else torch.float32
