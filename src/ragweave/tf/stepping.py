"""A step of the search under K passages: the network as a graph, with keys and values of what was said kept.

Notation used for tensor shapes
    B questions, K passages per question, R rows (beams or samples) per question, S context tokens, L tokens that the
    cache has room for, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from ragweave.tf.backend import compiled
from ragweave.tf.contexts import EncodedContexts
from ragweave.tf.layers import at_least_float32
from ragweave.tf.marginalization import token_log_marginals
from ragweave.tf.networks import DecoderCache
from ragweave.tf.options import Ids, Scores

Tensor = Any


def graphs(generator: Any, *, mixes: bool) -> tuple[Any, Any]:
    """The two graphs of a step, for a generator; to be kept, since making them takes seconds.

    Args:
        generator: A generator of `ragweave.tf`.
        mixes: Whether scores are log-probabilities of mixtures; the generator's own logits, of K = 1, otherwise.

    Returns:
        The step that begins or goes on, and the one in which rows continue others.
    """

    def plain(cache: DecoderCache, mask: Tensor, tokens: Tensor, doc_scores: Tensor) -> tuple[Tensor, Any]:
        return _next(generator, mixes, cache, mask, tokens, doc_scores)

    def reordered(
        cache: DecoderCache, mask: Tensor, tokens: Tensor, doc_scores: Tensor, rows: Tensor
    ) -> tuple[Tensor, Any]:
        return _next(generator, mixes, cache.reordered(rows), mask, tokens, doc_scores)

    return compiled(plain), compiled(reordered)


class MixtureStep:
    """Scores the next token of answers under mixtures of K passages, B*R rows at a time; see `ragweave.tf.search`.

    Args:
        generator: A generator of `ragweave.tf`.
        steps: What `graphs` made for it.
        contexts: B*K contexts that were read.
        doc_scores: Scaled passage scores, (B, K).
        rows: R.
        max_length: The longest answer, with the start token.
    """

    def __init__(
        self,
        generator: Any,
        steps: tuple[Any, Any],
        contexts: EncodedContexts,
        doc_scores: Tensor,
        *,
        rows: int,
        max_length: int,
    ) -> None:
        self._plain, self._reordered = steps
        self._mask, self._doc_scores, self._rows = contexts.attention_mask, doc_scores, rows
        self._cache = generator.empty_cache(
            generator.cross_keys_values(contexts.last_hidden_state), rows, max_length - 1
        )

    def __call__(self, tokens: Ids, parents: NDArray[np.int32] | None) -> Scores:
        """Scores of what may follow, (B*R, V), from the newest tokens and what they follow; see `search.Step`."""
        given = (
            self._cache,
            self._mask,
            ops.convert_to_tensor(tokens[:, None].astype("int32")),
            self._doc_scores,
        )
        if parents is None:
            logits, self._cache = self._plain(*given)
        else:
            logits, self._cache = self._reordered(*given, ops.convert_to_tensor(self._of_cache(parents)))
        scores: Scores = np.asarray(ops.convert_to_numpy(logits), dtype=np.float32)
        return scores

    def _of_cache(self, parents: NDArray[np.int32]) -> NDArray[np.int32]:
        """Rows of the cache, (B*K*R,), from rows of the search, (B*R,)."""
        n_questions, n_docs = self._doc_scores.shape
        beams = parents.reshape(n_questions, 1, self._rows) % self._rows
        contexts = np.arange(n_questions * n_docs, dtype=np.int32).reshape(n_questions, n_docs, 1)
        rows: NDArray[np.int32] = (contexts * self._rows + beams).astype(np.int32).reshape(-1)
        return rows


def _next(
    generator: Any, mixes: bool, cache: DecoderCache, mask: Tensor, tokens: Tensor, doc_scores: Tensor
) -> tuple[Tensor, DecoderCache]:
    """One token of all rows under all passages: scores, (B*R, V), and the cache with the token in it."""
    n_questions, n_docs = ops.shape(doc_scores)
    apart = ops.reshape(tokens, (n_questions, 1, -1))  # (B, 1, R)
    rows = ops.reshape(ops.repeat(apart, n_docs, axis=1), (-1, 1))  # (B*K*R, 1)
    decoded = generator.decode((cache.cross_keys, cache.cross_values), mask, rows, past=cache, use_cache=True)
    logits = at_least_float32(decoded.logits)
    vocabulary = ops.shape(logits)[-1]
    if not mixes:
        return ops.reshape(logits, (-1, vocabulary)), decoded.cache
    grouped = ops.reshape(logits, (n_questions, n_docs, -1, vocabulary))  # (B, K, R, V)
    return ops.reshape(token_log_marginals(grouped, doc_scores), (-1, vocabulary)), decoded.cache
