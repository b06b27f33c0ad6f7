"""What every index can do, whatever holds its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

INDEX_COLUMN = "embeddings"
REQUIRED_COLUMNS = ("title", "text", INDEX_COLUMN)
MISSING = -1
"""The row number that stands for "no passage" where an index has fewer hits than were asked for."""


@runtime_checkable
class Index(Protocol):
    """Passages and their vectors, searchable by inner product.

    The method names are those of transformers' RAG, so an index written for it works here.
    """

    def init_index(self) -> None:
        """Load what searching needs; called once, before the first search."""
        ...

    def is_initialized(self) -> bool:
        """Whether `init_index` has been called."""
        ...

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 5
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the passages with the largest inner products.

        Args:
            question_hidden_states: Question vectors, (B, D).
            n_docs: K.

        Returns:
            Row numbers, (B, K), best first and -1 where there are fewer hits, and the passages' vectors,
            (B, K, D), zero for those.
        """
        ...

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look passages up.

        Args:
            doc_ids: Row numbers, (B, K).

        Returns:
            B dictionaries of lists of length K: "title" and "text" at least, empty for row -1.
        """
        ...


@dataclass(frozen=True)
class Hits:
    """What was found for B questions.

    The score of a passage, the logit of p(z|x), is ``weights * scale * <question, passage> + offsets``, with the
    model's scale: so a score may come from elsewhere in whole or in part, and gradient still reaches the question
    encoder through what comes from the vectors.

    Attributes:
        rows: Row numbers, (B, K), best first and -1 where there are fewer hits.
        vectors: The passages' vectors, (B, K, D), zero for those.
        weights: How much the inner products count, (B, K); ``None`` for 1.
        offsets: What is added to them, (B, K); ``None`` for nothing.
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]
    weights: NDArray[np.float32] | None = None
    offsets: NDArray[np.float32] | None = None

    def of(self, questions: Sequence[int], n_docs: int) -> Hits:
        """The best K hits of some questions, given by their places."""
        chosen = list(questions)
        return Hits(
            rows=self.rows[chosen, :n_docs],
            vectors=self.vectors[chosen, :n_docs],
            weights=None if self.weights is None else self.weights[chosen, :n_docs],
            offsets=None if self.offsets is None else self.offsets[chosen, :n_docs],
        )


@runtime_checkable
class TextIndex(Protocol):
    """An index that may look at the questions' words, and not at their vectors alone."""

    def get_hits(
        self,
        question_hidden_states: NDArray[np.float32],
        n_docs: int,
        *,
        questions: Sequence[str] | None,
        doc_score_scale: float,
    ) -> Hits:
        """Find passages.

        Args:
            question_hidden_states: Question vectors, (B, D).
            n_docs: K.
            questions: The questions, where they are known.
            doc_score_scale: What the model multiplies inner products with.
        """
        ...


class PassageScorer(Protocol):
    """Scores passages by reading them together with the question; `Reranker` is one."""

    def score(self, questions: Sequence[str], docs: Sequence[dict[str, Any]]) -> list[NDArray[np.float32]]:
        """Score the passages of B questions.

        Args:
            questions: B questions.
            docs: B dictionaries of lists with their titles and texts.

        Returns:
            For every question the logits of its passages.
        """
        ...
