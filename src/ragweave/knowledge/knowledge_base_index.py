"""A knowledge base as an index of the retriever.

Notation used for tensor shapes: B questions, K passages per question, C candidates, N rows, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError
from ragweave.knowledge.storage import WordScores
from ragweave.knowledge.store import COLUMNS
from ragweave.retrieval.fusion import reciprocal_rank_fusion
from ragweave.retrieval.index_protocol import Hits, PassageScorer
from ragweave.types import Passage, SearchSettings

if TYPE_CHECKING:
    from ragweave.knowledge.base import KnowledgeBase

    Ranking = tuple[NDArray[np.int64], NDArray[np.float32]]
    """Rows, best first, and of their scores what inner products do not account for."""

_NOTHING = Passage(id="", document_id="", title="", text="", source="")


class KnowledgeBaseIndex:
    """Satisfies the `Index` and `TextIndex` protocols of ``ragweave.retrieval`` with a knowledge base.

    Args:
        base: The knowledge base, open.
        settings: How it is searched; what they leave open is as `defaults` says.
        defaults: How the model searches where nobody says; by vectors where that is left out. Where the knowledge
            base has vectors alone, it is by them.
        reranker: Reads the candidates together with the question; its logits are then their scores.

    Raises:
        KnowledgeBaseError: It is to be searched by words, and was built for vectors alone.
    """

    def __init__(
        self,
        base: KnowledgeBase,
        *,
        settings: SearchSettings | None = None,
        defaults: SearchSettings | None = None,
        reranker: PassageScorer | None = None,
    ) -> None:
        self.base = base
        self.reranker = reranker
        self._asked, self._defaults = settings or SearchSettings(), defaults or SearchSettings()
        self.settings = self._asked.resolved(self._defaults, words=base.manifest.language is not None)
        self._score_words: Callable[[str], WordScores] | None = (
            None
            if self.settings.kind == "dense"
            else base.text_scorer(k1=self.settings.k1, b=self.settings.b)
        )

    def __len__(self) -> int:
        return len(self.base)

    def over(self, base: KnowledgeBase) -> KnowledgeBaseIndex:
        """Another knowledge base, such as a newer version, searched in the same way."""
        return type(self)(base, settings=self._asked, defaults=self._defaults, reranker=self.reranker)

    def init_index(self) -> None:
        """Do nothing: a knowledge base is ready once it is open."""

    def is_initialized(self) -> bool:
        """Whether the index can be searched: always."""
        return True

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 5
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the passages with the largest inner products.

        Args:
            question_hidden_states: Question vectors, shape (B, D).
            n_docs: K.

        Returns:
            Rows, shape (B, K), best first and -1 where there are fewer passages, and the passages' vectors,
            shape (B, K, D), zero for those.
        """
        _, rows = self.base.search(question_hidden_states, n_docs)
        return rows, self._vectors(rows)

    def get_hits(
        self,
        question_hidden_states: NDArray[np.float32],
        n_docs: int,
        *,
        questions: Sequence[str] | None,
        doc_score_scale: float,
    ) -> Hits:
        """Find passages as the settings say.

        Args:
            question_hidden_states: Question vectors, shape (B, D).
            n_docs: K.
            questions: The questions; needed but for dense retrieval without a reranker.
            doc_score_scale: What the model multiplies inner products with.

        Raises:
            ConfigurationError: The questions are needed.
        """
        if self.settings.kind == "dense" and self.reranker is None:
            return Hits(*self.get_top_docs(question_hidden_states, n_docs))
        if questions is None:
            raise ConfigurationError(
                "This index looks at the words of questions: hand them on as question_strings, beside their vectors."
            )
        if self.reranker is None:
            found = self._ranked(questions, question_hidden_states, n_docs, doc_score_scale)
        else:
            candidates = max(n_docs, self.settings.candidates)
            found = self._ranked(questions, question_hidden_states, candidates, doc_score_scale)
            chosen = [rows[:candidates] for rows, _ in found]
            found = _reranked(self.reranker, questions, [self._columns(rows) for rows in chosen], chosen)
        rows = np.full((len(found), n_docs), -1, dtype=np.int64)
        offsets = np.zeros((len(found), n_docs), dtype=np.float32)
        for place, (own, added) in enumerate(found):
            count = min(len(own), n_docs)
            rows[place, :count], offsets[place, :count] = own[:count], added[:count]
        pooled = self.reranker is None and (self.settings.kind, self.settings.fusion) == (
            "hybrid",
            "weighted",
        )
        weight = self.settings.dense_weight if pooled else 0.0
        return Hits(rows, self._vectors(rows), np.full_like(offsets, weight), offsets)

    def hits_for_rows(self, rows: Sequence[Sequence[int]], n_docs: int) -> Hits:
        """Passages that were chosen by others, such as gold passages, as if they had been found by their vectors.

        Args:
            rows: For each of B questions the rows of its passages; of more than K the first.
            n_docs: K.
        """
        chosen = np.full((len(rows), n_docs), -1, dtype=np.int64)
        for place, own in enumerate(rows):
            chosen[place, : min(len(own), n_docs)] = own[:n_docs]
        return Hits(chosen, self._vectors(chosen))

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look passages up.

        Args:
            doc_ids: Rows, shape (B, K).

        Returns:
            B dictionaries of lists of length K: ``id``, ``document_id``, ``title``, ``text``, ``source``, all
            empty for row -1.
        """
        return [self._columns(rows) for rows in doc_ids]

    def _ranked(
        self, questions: Sequence[str], vectors: NDArray[np.float32], n: int, scale: float
    ) -> list[Ranking]:
        """At most so many passages for each question, or more of which so many are wanted."""
        words = self._score_words
        if words is not None and self.settings.kind == "bm25":
            return [words(question).best(n) for question in questions]
        wanted = n if words is None else max(n, self.settings.candidates)
        dense = [rows[rows >= 0] for rows in self.base.search(vectors, wanted)[1]]
        if words is None:
            return [(rows, np.zeros(len(rows), np.float32)) for rows in dense]
        found: list[Ranking] = []
        for question, vector, rows in zip(questions, vectors, dense, strict=True):
            by_words = words(question)
            lexical, scores = by_words.best(wanted)
            if self.settings.fusion == "rrf":
                found.append(reciprocal_rank_fusion([rows, lexical[scores > 0]]))
            else:
                found.append(self._pooled(np.union1d(rows, lexical), vector, by_words, scale))
        return found

    def _pooled(
        self,
        rows: NDArray[np.int64],
        vector: NDArray[np.float32],
        by_words: WordScores,
        scale: float,
    ) -> Ranking:
        """Rank candidates of either kind by the weighted mean of both scores."""
        weight = np.float32(self.settings.dense_weight)
        products = self.base.vectors_of(rows) @ vector
        offsets = (1 - weight) * by_words.of(rows)
        order = np.lexsort((rows, -(weight * np.float32(scale) * products + offsets)))
        return rows[order], offsets[order]

    def _vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        vectors = np.zeros((*rows.shape, self.base.manifest.dimension), dtype=np.float32)  # (B, K, D)
        vectors[rows >= 0] = self.base.vectors_of(rows[rows >= 0])
        return vectors

    def _columns(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        passages = [self.base.passage(row) if row >= 0 else _NOTHING for row in rows]
        return {name: [getattr(passage, name) for passage in passages] for name in COLUMNS}


def _reranked(
    reranker: PassageScorer,
    questions: Sequence[str],
    docs: list[dict[str, Any]],
    chosen: list[NDArray[np.int64]],
) -> list[Ranking]:
    """Passages by the logits of a reranker."""
    ranked = []
    for rows, logits in zip(chosen, reranker.score(questions, docs), strict=True):
        order = np.argsort(-logits, kind="stable")
        ranked.append((rows[order], logits[order]))
    return ranked
