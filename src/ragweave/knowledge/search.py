"""How a knowledge base is searched: by vectors, by words, or by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from ragweave.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RetrievalKind = Literal["dense", "bm25", "hybrid"]
Fusion = Literal["weighted", "rrf"]

DEFAULT_DENSE_WEIGHT = 0.5
"""What vectors count beside words, where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How a knowledge base is searched, and what a passage's score, the logit of p(z|x), is made of.

    Attributes:
        kind: ``"dense"``: inner products of vectors, times the model's scale. ``"bm25"``: BM25 scores as they are, as
            in the ablation of Lewis et al. 2020, section 4.6. ``"hybrid"``: both. ``None``: as the model says
            (`RagConfig`), and ``"dense"`` where no model does or the knowledge base has vectors alone.
        fusion: How they are put together. ``"weighted"``: a weighted mean of the two scores, so that p(z|x) is in
            proportion to the product of both distributions, each to the power of its weight; every candidate of
            either is scored by both. ``"rrf"``: the logarithm of the fused reciprocal ranks, so that p(z|x) is in
            proportion to these.
        dense_weight: What vectors count in the weighted mean, from 0 to 1; words count the rest. ``None``: as the
            model says, and 0.5 where no model does.
        candidates: How many passages of each ranking are fused, or given to a reranker; K where that is more.
        k1: How soon further occurrences of a word cease to count in BM25.
        b: How much the length of a passage counts in BM25, from 0 to 1.
    """

    kind: RetrievalKind | None = None
    fusion: Fusion = "weighted"
    dense_weight: float | None = None
    candidates: int = 100
    k1: float = 0.9
    b: float = 0.4

    def __post_init__(self) -> None:
        """Check what a user may have got wrong.

        Raises:
            ConfigurationError: A value cannot work.
        """
        for name, value, known in (
            ("kind", self.kind, get_args(RetrievalKind)),
            ("fusion", self.fusion, get_args(Fusion)),
        ):
            if value is not None and value not in known:
                raise ConfigurationError(f"{name} is {value!r}; choose one of {', '.join(known)}.")
        if self.dense_weight is not None and not 0 <= self.dense_weight <= 1:
            raise ConfigurationError(f"dense_weight is {self.dense_weight}: give a number from 0 to 1.")
        if self.candidates < 1:
            raise ConfigurationError(f"candidates is {self.candidates}: give 1 or more.")

    def filled(self, otherwise: SearchSettings | None = None, *, words: bool = True) -> SearchSettings:
        """The same settings, with nothing left open.

        Args:
            otherwise: What holds where they do not say.
            words: Whether there are words to search by; otherwise it is by vectors, where they do not say.
        """
        own = otherwise or SearchSettings()
        weights = (self.dense_weight, own.dense_weight, DEFAULT_DENSE_WEIGHT)
        return replace(
            self,
            kind=self.kind or (own.kind if words else None) or "dense",
            dense_weight=next(weight for weight in weights if weight is not None),
        )


class WordScores(Protocol):
    """What passages score for the words they share with one question."""

    def best(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most K rows, best first, and their scores; who shares no word may be left out."""
        ...

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of M rows, (M,), 0 for those that share no word."""
        ...


@dataclass(frozen=True, slots=True)
class RowScores:
    """Satisfies `WordScores` with the scores of all rows.

    Attributes:
        values: (N,), minus infinity for rows that are not there.
    """

    values: NDArray[np.float32]

    def best(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most K rows, best first, and their scores."""
        from ragweave.retrieval.fusion import best

        rows = best(self.values, n)
        return rows, self.values[rows]

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of M rows, (M,)."""
        return self.values[rows]


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
