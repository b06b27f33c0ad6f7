"""RAG-Sequence: one passage explains the whole answer."""

from __future__ import annotations

from typing import Any

from ragweave.tf.generation import TFRagForGeneration
from ragweave.tf.marginalization import Targets, sequence_nll

Tensor = Any


class TFRagSequenceForGeneration(TFRagForGeneration):
    """RAG-Sequence (Lewis et al. 2020, section 2.1): p(y|x) = sum_z p(z|x) prod_t p(y_t | x, z, y_<t).

    Arguments as for `TFRagModel`.

    Example:
        ```python
        model = TFRagSequenceForGeneration.from_pretrained("facebook/rag-sequence-nq", retriever=retriever)
        inputs = tokenizer("who holds the record in 100m freestyle", return_tensors="np")
        answers = tokenizer.batch_decode(model.generate(**inputs, num_beams=4), skip_special_tokens=True)
        ```
    """

    def _nll(self, logits: Tensor, doc_scores: Tensor, targets: Targets, epsilon: float) -> Tensor:
        return sequence_nll(logits, doc_scores, targets.target_ids, targets.scored, epsilon)

    def _shown_logits(self, logits: Tensor, doc_scores: Tensor, do_marginalize: bool) -> Tensor:
        return logits
