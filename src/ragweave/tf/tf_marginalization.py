"""The equations of Lewis et al. 2020 (arXiv 2005.11401, section 2), in Keras' operations.

`ragweave.marginalization` explains them and their arguments; the functions of the same names are equal.

Notation used for tensor shapes: B questions, K passages per question, T target tokens, V vocabulary.
"""

from __future__ import annotations

from keras import ops

from ragweave.tf.keras_backend import Tensor
from ragweave.tf.layers import at_least_float32


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


def token_nll(
    logits: Tensor, doc_scores: Tensor, targets: Tensor, scored: Tensor, epsilon: float = 0.0
) -> Tensor:
    """RAG-Token's loss per question, (B,): -log p(y|x), with label smoothing over the mixture."""
    log_probs = target_log_probs(logits, targets)  # (B, K, T)
    nll = -_sum_scored(_log_mixture(log_probs, passage_log_probs(doc_scores)[:, :, None]), scored)
    if epsilon == 0.0:
        return nll
    smooth = -_sum_scored(ops.sum(token_log_marginals(logits, doc_scores), axis=-1), scored)
    return (1.0 - epsilon) * nll + epsilon / ops.shape(logits)[-1] * smooth


def sequence_nll(
    logits: Tensor, doc_scores: Tensor, targets: Tensor, scored: Tensor, epsilon: float = 0.0
) -> Tensor:
    """RAG-Sequence's loss per question, (B,): -log p(y|x), with label smoothing."""
    priors, scored = passage_log_probs(doc_scores), scored[:, None]  # (B, K), (B, 1, T)
    nll = -_log_mixture(_sum_scored(target_log_probs(logits, targets), scored), priors)
    if epsilon == 0.0:
        return nll
    vocabulary = ops.shape(logits)[-1]
    total = ops.sum(ops.log_softmax(at_least_float32(logits), axis=-1), axis=-1)  # (B, K, T)
    # The prior counts once for every token of the vocabulary: transformers' numbers.
    smooth = -_log_mixture(_sum_scored(total, scored), vocabulary * priors)
    return (1.0 - epsilon) * nll + epsilon / vocabulary * smooth


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
    """Log of the sum over passages, axis 1, of exp(log_weights + log_probs).

    A missing passage has a weight of -inf, whose gradient would be NaN: -1e30 replaces it, whose exp and gradient
    are 0.
    """
    exists = log_weights > float("-inf")
    joint = log_probs + ops.where(exists, log_weights, 0.0)
    return ops.logsumexp(ops.where(exists, joint, -1e30), axis=1)


def _sum_scored(values: Tensor, scored: Tensor) -> Tensor:
    """Sum over tokens, the last axis, of those that count."""
    return ops.sum(ops.where(scored, values, ops.zeros_like(values)), axis=-1)
