"""RAG-Token: every token of the answer may lean on another passage."""

from __future__ import annotations

from typing import Any

from keras import ops

from ragweave.errors import ShapeError
from ragweave.tf.generation import TFRagForGeneration
from ragweave.tf.marginalization import Targets, token_log_marginals, token_nll

Tensor = Any


class TFRagTokenForGeneration(TFRagForGeneration):
    """RAG-Token (Lewis et al. 2020, section 2.1): p(y|x) = prod_t sum_z p(z|x) p(y_t | x, z, y_<t).

    Arguments as for `TFRagModel`.

    Example:
        ```python
        model = TFRagTokenForGeneration.from_pretrained("facebook/rag-token-nq", retriever=retriever)
        inputs = tokenizer("who holds the record in 100m freestyle", return_tensors="np")
        answers = tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True)
        ```
    """

    def _nll(self, logits: Tensor, doc_scores: Tensor, targets: Targets, epsilon: float) -> Tensor:
        return token_nll(logits, doc_scores, targets.target_ids, targets.scored, epsilon)

    def marginalize(self, seq_logits: Tensor, doc_scores: Tensor, n_docs: int | None = None) -> Tensor:
        """Log-probabilities of the mixture.

        Args:
            seq_logits: Generator logits, (B*K, T, V).
            doc_scores: Scaled passage scores, (B, K).
            n_docs: K; taken from ``doc_scores`` where left out.

        Returns:
            Log-probabilities, (B, T, V).

        Raises:
            ShapeError: ``n_docs`` is not the K of ``doc_scores``.
        """
        if n_docs is not None and n_docs != doc_scores.shape[1]:
            raise ShapeError(f"doc_scores has shape {tuple(doc_scores.shape)}; expected (B, {n_docs}).")
        return self._shown_logits(seq_logits, doc_scores, do_marginalize=True)

    def _shown_logits(self, logits: Tensor, doc_scores: Tensor, do_marginalize: bool) -> Tensor:
        if not do_marginalize:
            return logits
        n_questions, n_docs = ops.shape(doc_scores)
        tokens, vocabulary = ops.shape(logits)[1:]
        # (B, K, R*T, V): beams are more positions
        grouped = ops.reshape(logits, (n_questions, n_docs, -1, vocabulary))
        marginals = token_log_marginals(grouped, doc_scores)
        return ops.reshape(marginals, (-1, tokens, vocabulary))  # (B*R, T, V)
