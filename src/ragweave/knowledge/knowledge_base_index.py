"""A knowledge base as an index of the retriever, which fuses the rankings by vectors and by words.

Fused scores are log-probabilities up to a constant: a model turns passage scores into p(z|x) by a softmax.

Notation used for tensor shapes: B questions, K passages per question, M rows, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError
from ragweave.knowledge.filters import check_names
from ragweave.knowledge.storage import WordScores, checked_vectors
from ragweave.knowledge.store import COLUMNS
from ragweave.retrieval.index_protocol import MISSING, Hits, PassageScorer, ReadyIndex, vectors_of_rows
from ragweave.types import Passage, SearchSettings

if TYPE_CHECKING:  # KnowledgeBase.as_index creates the class below
    from ragweave.knowledge.base import KnowledgeBase

_Ranking = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows, best first, and the part of their scores that is not an inner product (`Hits.offsets`)."""

_NO_PASSAGE = Passage(id="", document_id="", title="", text="", source="")

_RANK_CONSTANT = 60  # of reciprocal rank fusion, as its authors chose it


class KnowledgeBaseIndex(ReadyIndex):
    """Satisfies the `Index` and `TextIndex` protocols of ``ragweave.retrieval`` with a knowledge base.

    ``defaults`` are the model's settings, for all fields that ``settings`` leave unset. Without them, or without
    words in the knowledge base, search is dense. The logits of a reranker replace the scores of candidates.
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
        self._storage = base.storage
        self._requested, self._defaults = settings or SearchSettings(), defaults or SearchSettings()
        self.settings = self._requested.resolved(self._defaults, words=base.manifest.language is not None)
        self._score_words: Callable[[str], WordScores] | None = (
            None
            if self.settings.kind == "dense"
            else self._storage.text_scorer(k1=self.settings.k1, b=self.settings.b, where=self.settings.where)
        )

    def __len__(self) -> int:
        return len(self.base)

    def over(self, base: KnowledgeBase) -> KnowledgeBaseIndex:
        """Another knowledge base, such as a newer version, searched in the same way."""
        return type(self)(base, settings=self._requested, defaults=self._defaults, reranker=self.reranker)

    def narrowed(self, where: str) -> KnowledgeBaseIndex:
        """The same index, which finds only passages that also meet a condition."""
        check_names(where, self._storage.columns())
        both = where if self._requested.where is None else f"({self._requested.where}) and ({where})"
        settings = replace(self._requested, where=both)
        return type(self)(self.base, settings=settings, defaults=self._defaults, reranker=self.reranker)

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 5
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The passages with the largest inner products: rows, (B, K), and vectors, (B, K, D); see `Index`."""
        rows = self._nearest(question_hidden_states, n_docs)
        return rows, self._vectors(rows)

    def get_hits(
        self,
        question_hidden_states: NDArray[np.float32],
        n_docs: int,
        *,
        questions: Sequence[str] | None,
        doc_score_scale: float,
    ) -> Hits:
        """Find passages according to the settings; see `TextIndex`. All but dense search needs the questions."""
        if self.settings.kind == "dense" and self.reranker is None:
            return Hits(*self.get_top_docs(question_hidden_states, n_docs))
        if questions is None:
            raise ConfigurationError(
                "This index reads the words of questions. Pass them as question_strings, with their vectors."
            )
        n = n_docs if self.reranker is None else max(n_docs, self.settings.candidates)
        rankings = self._ranked(questions, question_hidden_states, n, doc_score_scale)
        if self.reranker is not None:
            rankings = self._reranked(self.reranker, questions, [rows[:n] for rows, _ in rankings])
        rows = np.full((len(rankings), n_docs), MISSING, dtype=np.int64)
        offsets = np.zeros((len(rankings), n_docs), dtype=np.float32)
        for number, (ranked, scores) in enumerate(rankings):
            count = min(len(ranked), n_docs)
            rows[number, :count], offsets[number, :count] = ranked[:count], scores[:count]
        # Only the weighted mean contains the inner products; every other score is an offset as a whole.
        weighted = (
            self.reranker is None and self.settings.kind == "hybrid" and self.settings.fusion == "weighted"
        )
        weight = self.settings.dense_weight if weighted else 0.0
        return Hits(rows, self._vectors(rows), np.full_like(offsets, weight), offsets)

    def hits_for_rows(self, rows: Sequence[Sequence[int]], n_docs: int) -> Hits:
        """Hits for the first K rows of each of B questions, as dense search would return them."""
        chosen = np.full((len(rows), n_docs), MISSING, dtype=np.int64)
        for number, known in enumerate(rows):
            chosen[number, : min(len(known), n_docs)] = known[:n_docs]
        return Hits(chosen, self._vectors(chosen))

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """B dictionaries of lists of length K, a key per attribute of `Passage` and its place; see `Index`."""
        return [self._columns(rows) for rows in doc_ids]

    def _nearest(self, vectors: NDArray[np.float32], n: int) -> NDArray[np.int64]:
        vectors = checked_vectors(vectors, n, self.base.manifest)
        return self._storage.search(vectors, n, self.settings.where)[1]

    def _ranked(
        self, questions: Sequence[str], vectors: NDArray[np.float32], n: int, scale: float
    ) -> list[_Ranking]:
        """The passages of each question: at least n, if there are enough."""
        if self._score_words is not None and self.settings.kind == "bm25":
            return [self._score_words(question).best(n) for question in questions]
        candidates = n if self._score_words is None else max(n, self.settings.candidates)
        dense = [rows[rows != MISSING] for rows in self._nearest(vectors, candidates)]
        if self._score_words is None:
            return [(rows, np.zeros(len(rows), np.float32)) for rows in dense]
        rankings: list[_Ranking] = []
        for question, vector, rows in zip(questions, vectors, dense, strict=True):
            word_scores = self._score_words(question)
            lexical, scores = word_scores.best(candidates)
            if self.settings.fusion == "rrf":
                rankings.append(reciprocal_rank_fusion([rows, lexical[scores > 0]]))
            else:
                rankings.append(self._weighted(np.union1d(rows, lexical), vector, word_scores, scale))
        return rankings

    def _weighted(
        self, rows: NDArray[np.int64], vector: NDArray[np.float32], word_scores: WordScores, scale: float
    ) -> _Ranking:
        """Rank M candidates of either kind by the weighted mean of both scores."""
        weight = np.float32(self.settings.dense_weight)
        products = self._storage.vectors(rows) @ vector
        offsets = (1 - weight) * word_scores.of(rows)
        order = np.lexsort((rows, -(weight * np.float32(scale) * products + offsets)))
        return rows[order], offsets[order]

    def _reranked(
        self, reranker: PassageScorer, questions: Sequence[str], candidates: list[NDArray[np.int64]]
    ) -> list[_Ranking]:
        rankings = []
        docs = [self._columns(rows) for rows in candidates]
        for rows, logits in zip(candidates, reranker.score(questions, docs), strict=True):
            order = np.argsort(-logits, kind="stable")
            rankings.append((rows[order], logits[order]))
        return rankings

    def _vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return vectors_of_rows(rows, self._storage.vectors, self.base.manifest.dimension)  # (B, K, D)

    def _columns(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        passages = [_NO_PASSAGE if row == MISSING else self._storage.passage(int(row)) for row in rows]
        return {name: [getattr(passage, name) for passage in passages] for name in (*COLUMNS, "place")}


def reciprocal_rank_fusion(
    rankings: Sequence[NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Fuse rankings, rows that come best first, by their ranks alone (Cormack, Clarke and Buettcher 2009).

    A row's fused value is the sum of ``1 / (60 + rank)`` over the rankings that contain it. Its score is the
    logarithm of that, so that a softmax makes p(z|x) proportional to the fused value. Returns all rows,
    best first, and their scores.
    """
    if not rankings:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    rows, inverse = np.unique(np.concatenate(rankings), return_inverse=True)
    shares = np.concatenate([1 / (_RANK_CONSTANT + 1 + np.arange(len(ranking))) for ranking in rankings])
    fused = np.bincount(inverse, weights=shares, minlength=len(rows))
    order = np.lexsort((rows, -fused))
    return rows[order], np.log(fused[order]).astype(np.float32)
