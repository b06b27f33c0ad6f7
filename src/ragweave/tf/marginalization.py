"""The equations of Lewis et al. 2020 (arXiv 2005.11401, section 2), in Keras' operations.

The functions are those of `ragweave.marginalization`, which explains them; here, too, nothing else knows them.

Notation used for tensor shapes
    B questions, K passages per question, T target tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from ragweave.tf.layers import at_least_float32

Tensor = Any


def passage_log_probs(doc_scores: Tensor) -> Tensor:
    """The retriever's log p(z|x), (B, K), from scores, (B, K); -inf where there is no passage."""
    return ops.log_softmax(at_least_float32(doc_scores), axis=-1)


def token_log_marginals(logits: Tensor, doc_scores: Tensor) -> Tensor:
    """RAG-Token's next-token distribution, log sum_z p(z|x) p(v | x, z, y_<t): (B, K, T, V) to (B, T, V)."""
    log_probs = ops.log_softmax(at_least_float32(logits), axis=-1)
    return _log_mixture(log_probs, passage_log_probs(doc_scores)[:, :, None, None])


def target_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Log p(y_t | x, z, y_<t) of given target tokens, (B, T): (B, K, T, V) to (B, K, T).

    Ids that are not scored may be anything below 0.
    """
    b, k, t, vocabulary = ops.shape(logits)
    index = ops.broadcast_to(ops.maximum(targets, 0)[:, None], (b, k, t))
    flat = ops.reshape(at_least_float32(logits), (-1, vocabulary))
    nll = ops.sparse_categorical_crossentropy(ops.reshape(index, (-1,)), flat, from_logits=True)
    return ops.reshape(-nll, (b, k, t))


def sequence_log_joint(token_log_probs: Tensor, scored: Tensor, doc_scores: Tensor) -> Tensor:
    """Log p(z|x) p(y|x,z), (B, K): RAG-Sequence's terms before they are summed over passages.

    Args:
        token_log_probs: Log p(y_t | x, z, y_<t), (B, K, T).
        scored: Which target tokens count, bool, (B, T).
        doc_scores: Scaled passage scores, (B, K).
    """
    return ops.sum(_where(scored[:, None], token_log_probs), axis=-1) + passage_log_probs(doc_scores)


def sequence_log_likelihood(token_log_probs: Tensor, scored: Tensor, doc_scores: Tensor) -> Tensor:
    """RAG-Sequence: log p(y|x), (B,). Arguments as for `sequence_log_joint`."""
    said = ops.sum(_where(scored[:, None], token_log_probs), axis=-1)
    return _log_mixture(said, passage_log_probs(doc_scores))


def token_log_likelihood(token_log_probs: Tensor, scored: Tensor, doc_scores: Tensor) -> Tensor:
    """RAG-Token: log p(y|x), (B,). Arguments as for `sequence_log_joint`."""
    per_token = _log_mixture(token_log_probs, passage_log_probs(doc_scores)[:, :, None])  # (B, T)
    return ops.sum(_where(scored, per_token), axis=-1)


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
    nll = -token_log_likelihood(target_log_probs(logits, targets), scored, doc_scores)
    if epsilon == 0.0:
        return nll
    marginals = ops.sum(token_log_marginals(logits, doc_scores), axis=-1)  # (B, T)
    smooth = -ops.sum(_where(scored, marginals), axis=-1)
    return (1.0 - epsilon) * nll + epsilon / ops.shape(logits)[-1] * smooth


def sequence_nll(
    logits: Tensor, doc_scores: Tensor, targets: Tensor, scored: Tensor, epsilon: float = 0.0
) -> Tensor:
    """RAG-Sequence's loss per question, (B,): -log p(y|x), with label smoothing. Arguments as for `token_nll`.

    The passage prior stands in the smoothing term as many times as there are tokens in the vocabulary, as in
    `ragweave.marginalization.sequence_nll`.
    """
    nll = -sequence_log_likelihood(target_log_probs(logits, targets), scored, doc_scores)
    if epsilon == 0.0:
        return nll
    vocabulary = ops.shape(logits)[-1]
    total = ops.sum(ops.log_softmax(at_least_float32(logits), axis=-1), axis=-1)  # (B, K, T)
    said = ops.sum(_where(scored[:, None], total), axis=-1)
    smooth = -_log_mixture(said, vocabulary * passage_log_probs(doc_scores))
    return (1.0 - epsilon) * nll + epsilon / vocabulary * smooth


@dataclass(frozen=True)
class Targets:
    """What the decoder reads and what it has to say.

    Attributes:
        decoder_input_ids: Decoder input, (B, T).
        target_ids: The token that each position predicts, (B, T).
        scored: Which of them count, bool, (B, T).
    """

    decoder_input_ids: Tensor
    target_ids: Tensor
    scored: Tensor


def scored_positions(target_ids: Tensor, pad_token_id: int | None, eos_token_id: int | None) -> Tensor:
    """Which targets are part of the answer, bool, (B, T): neither ignored (-100) nor padding.

    Where a model pads with its end-of-sequence token, the first one ends the answer and counts.
    """
    scored = target_ids >= 0
    if pad_token_id is None:
        return scored
    is_pad = ops.equal(target_ids, pad_token_id)
    if pad_token_id == eos_token_id:
        is_pad = ops.logical_and(is_pad, ops.cumsum(ops.cast(is_pad, "int32"), axis=-1) > 1)
    return ops.logical_and(scored, ops.logical_not(is_pad))


def _log_mixture(log_probs: Tensor, log_weights: Tensor) -> Tensor:
    """Log of the sum over passages, axis 1, of exp(log_weights + log_probs), without a gradient through -inf."""
    there = log_weights > float("-inf")
    joint = log_probs + ops.where(there, log_weights, 0.0)
    joint = ops.where(there, joint, -1e30)  # exp of it is 0, and so is its gradient
    return ops.logsumexp(joint, axis=1)


def _where(scored: Tensor, values: Tensor) -> Tensor:
    return ops.where(scored, values, ops.zeros_like(values))
