"""The one way from a question to passages: search an index, score what it returns, look the passages up.

The pipeline, training, evaluation, the service and `RagRetriever` (transformers' interface) all retrieve through
`Retriever`.

Notation used for tensor shapes: B questions, K passages per question, D vector size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError, IndexDataError
from ragweave.retrieval.index_protocol import MISSING, Hits, Index, TextIndex
from ragweave.types import Place, ScoredPassage

if TYPE_CHECKING:  # ragweave.tf retrieves where torch is not installed
    from ragweave.encoders.text_encoder import TextEncoder


def passage_scores(
    question_vectors: Any, passage_vectors: Any, scale: float, weights: Any = None, offsets: Any = None
) -> Any:
    """Logits of p(z|x), (B, K): scaled inner products, weighted and shifted as the index specifies (`Hits`).

    It works on numpy arrays and on torch tensors. It is a sum and not a matrix product because autocast would
    compute a matrix product in half precision. ``None`` stands for weights of 1 and offsets of 0.
    """
    scores = scale * (question_vectors[:, None] * passage_vectors).sum(-1)
    if weights is not None:
        scores = weights * scores
    return scores if offsets is None else scores + offsets


@dataclass(frozen=True)
class RetrievalResult:
    """The passages of B questions."""

    question_vectors: NDArray[np.float32]  # (B, D)
    # Row numbers in the index, (B, K), best first; -1 where the index has fewer passages.
    rows: NDArray[np.int64]
    passage_vectors: NDArray[np.float32]  # (B, K, D), zero where there is no passage
    scores: NDArray[np.float32]  # logits of p(z|x), (B, K); minus infinity where there is no passage
    # How much the inner products count in the scores, (B, K); ``None`` for 1.
    weights: NDArray[np.float32] | None
    offsets: NDArray[np.float32] | None  # what is added to them, (B, K); ``None`` for nothing
    index: Index = field(repr=False)  # the index that the rows belong to

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_empty(self) -> NDArray[np.bool_]:
        """Which questions have no passage, (B,)."""
        return np.all(np.isneginf(self.scores), axis=1)

    @cached_property
    def docs(self) -> list[dict[str, Any]]:
        """B dictionaries of lists of length K: "title" and "text" at least, empty where there is no passage."""
        look_up = getattr(self.index, "get_texts", self.index.get_doc_dicts)
        return look_up(self.rows)

    @cached_property
    def passages(self) -> list[list[ScoredPassage | None]]:
        """The K passages of each question in the order of `rows`; ``None`` where there is none."""
        return [_passages(*columns) for columns in zip(self.docs, self.rows, self.scores, strict=True)]

    def ranked_passages(self) -> list[tuple[ScoredPassage, ...]]:
        """The passages of each question by descending p(z|x)."""
        return [by_prior(passages) for passages in self.passages]

    def select(self, questions: Sequence[int], n_docs: int) -> RetrievalResult:
        """The best K passages of some of the questions, given by their positions."""
        index = list(questions)
        columns = ("rows", "passage_vectors", "scores", "weights", "offsets")
        parts = {name: getattr(self, name) for name in columns if getattr(self, name) is not None}
        selected = {name: values[index, :n_docs] for name, values in parts.items()}
        return replace(self, question_vectors=self.question_vectors[index], **selected)


def by_prior(passages: Sequence[ScoredPassage | None]) -> tuple[ScoredPassage, ...]:
    """The passages of one question by descending p(z|x), without the missing ones."""
    present = [passage for passage in passages if passage is not None]
    return tuple(sorted(present, key=lambda passage: -passage.prior))


@dataclass(frozen=True)
class Retriever:
    """Retrieves passages for questions.

    Attributes:
        index: Where to search.
        encoder: Encodes questions; ``None`` if every call passes question vectors.
        doc_score_scale: The factor that turns inner products into logits of p(z|x).
        batch_size: Questions searched together.

    Example:
        ```python
        retriever = RagPipeline.from_pretrained("embedded", knowledge_base="kb").text_retriever
        result = retriever.retrieve(["What is the capital of Mongolia?"], 5)
        print(result.passages[0][0].title)
        ```
    """

    index: Index
    encoder: TextEncoder | None = None
    doc_score_scale: float = 1.0
    batch_size: int = 128

    def retrieve(
        self,
        questions: Sequence[str] | None,
        n_docs: int,
        *,
        vectors: NDArray[np.float32] | None = None,
    ) -> RetrievalResult:
        """Retrieve K passages for each of B questions.

        Args:
            questions: The questions. Not needed if ``vectors`` are given and the index only compares vectors.
            n_docs: K.
            vectors: Question vectors, (B, D); the encoder computes them if they are not given.

        Raises:
            ConfigurationError: ``n_docs`` is below 1, or the index needs the questions and they are missing.
            IndexDataError: The index cannot be searched with these vectors.
            QuestionError: A question is empty, or longer than the encoder reads.
        """
        if n_docs < 1:
            raise ConfigurationError(f"n_docs is {n_docs}; it must be 1 or more.")
        questions, vectors = self._encoded(questions, vectors)
        parts = [
            self._search(
                None if questions is None else questions[start : start + self.batch_size],
                vectors[start : start + self.batch_size],
                n_docs,
            )
            for start in range(0, max(len(vectors), 1), self.batch_size)
        ]
        hits = parts[0] if len(parts) == 1 else _concatenated(parts)
        expected = (len(vectors), n_docs)
        if hits.rows.shape != expected or hits.vectors.shape[:2] != expected:
            raise IndexDataError(
                f"The index returned row numbers of shape {hits.rows.shape} and vectors of shape "
                f"{hits.vectors.shape}; expected {expected} and {expected} with D, with row -1 and zeros for "
                "missing passages."
            )
        return self._scored(vectors, hits)

    def narrowed(self, where: str) -> Retriever:
        """The same retriever, which finds only passages that meet a condition; see `SearchSettings`.

        Raises `ConfigurationError` if the condition is invalid, or the index has no metadata.
        """
        narrowed = getattr(self.index, "narrowed", None)
        if narrowed is None:
            raise ConfigurationError(
                "Only knowledge bases have metadata: search one, or leave out the condition."
            )
        return replace(self, index=narrowed(where))

    def score(self, questions: Sequence[str], hits: Hits) -> RetrievalResult:
        """Score passages that are not search results, such as gold passages of B questions, by their vectors.

        Raises `QuestionError` if a question is empty, or longer than the encoder reads.
        """
        _, vectors = self._encoded(questions, None)
        return self._scored(vectors, hits)

    def _encoded(
        self, questions: Sequence[str] | None, vectors: NDArray[np.float32] | None
    ) -> tuple[list[str] | None, NDArray[np.float32]]:
        texts = None if questions is None else [question.strip() for question in questions]
        if vectors is not None:
            return texts, vectors
        if self.encoder is None or texts is None:
            raise ConfigurationError("Give question vectors, or questions and a retriever with an encoder.")
        for question in texts:
            self.encoder.question_length(question)
        return texts, self.encoder.encode_questions(texts)

    def _search(self, questions: Sequence[str] | None, vectors: NDArray[np.float32], n_docs: int) -> Hits:
        if isinstance(self.index, TextIndex):
            scale = self.doc_score_scale
            return self.index.get_hits(vectors, n_docs, questions=questions, doc_score_scale=scale)
        rows, passage_vectors = self.index.get_top_docs(vectors, n_docs)
        return Hits(np.asarray(rows), np.asarray(passage_vectors))

    def _scored(self, vectors: NDArray[np.float32], hits: Hits) -> RetrievalResult:
        scores = passage_scores(vectors, hits.vectors, self.doc_score_scale, hits.weights, hits.offsets)
        scores = np.where(hits.rows == MISSING, -np.inf, scores).astype(np.float32)
        return RetrievalResult(
            vectors, hits.rows, hits.vectors, scores, hits.weights, hits.offsets, self.index
        )


def _concatenated(parts: Sequence[Hits]) -> Hits:
    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values)

    return Hits(joined("rows"), joined("vectors"), joined("weights"), joined("offsets"))


def _passages(
    doc: dict[str, Any], rows: NDArray[np.int64], scores: NDArray[np.float32]
) -> list[ScoredPassage | None]:
    """The K passages of one question."""
    present = rows != MISSING
    if not present.any():
        return [None] * len(rows)
    weights = np.exp(scores - scores[present].max())  # 0 for missing passages, whose scores are -inf
    priors = (weights / weights.sum()).tolist()
    places = doc.get("place")  # of a knowledge base; a user's data set may have a column of this name
    return [
        None
        if row == MISSING
        else ScoredPassage(
            id=str(doc["id"][k]) if "id" in doc else str(row),
            title=doc["title"][k],
            text=doc["text"][k],
            source=doc["source"][k] if "source" in doc else "",
            doc_score=score,
            prior=prior,
            place=places[k] if places and isinstance(places[k], Place) else None,
            metadata=json.loads(doc["metadata"][k]) if places and isinstance(places[k], Place) else {},
        )
        for k, (row, score, prior) in enumerate(zip(rows.tolist(), scores.tolist(), priors, strict=True))
    ]
