"""The protocols of indexes, and code that their implementations share.

Notation used for tensor shapes: B questions, K passages per question, M rows, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import IndexDataError, ShapeError

INDEX_COLUMN = "embeddings"
REQUIRED_COLUMNS = ("title", "text", INDEX_COLUMN)
MISSING = -1
"""The row number of a missing passage, if an index has fewer than K hits."""


@runtime_checkable
class Index(Protocol):
    """Passages and their vectors, searchable by inner product.

    The method names are those of transformers' RAG, so an index written for it works here.
    """

    def init_index(self) -> None:
        """Prepare for searches; called once, before the first one."""
        ...

    def is_initialized(self) -> bool:
        """Whether `init_index` has been called."""
        ...

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 5
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Search for the passages with the largest inner products.

        Args:
            question_hidden_states: Question vectors, (B, D).
            n_docs: K.

        Returns:
            Row numbers, (B, K), best first and -1 for missing passages, and the passages' vectors,
            (B, K, D), zero for those.
        """
        ...

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look up passages by their row numbers, (B, K).

        Returns:
            B dictionaries of lists of length K: "title" and "text" at least, empty for row -1.
        """
        ...


@dataclass(frozen=True)
class Hits:
    """The result of an index for B questions.

    The score of a passage, the logit of p(z|x), is ``weights * scale * <question, passage> + offsets``, with the
    model's scale. The score may come partly or wholly from a source other than the vectors; gradients still reach
    the question encoder through the part that comes from them.

    Attributes:
        rows: Row numbers, (B, K), best first and -1 for missing passages.
        vectors: The passages' vectors, (B, K, D), zero for those.
        weights: How much the inner products count, (B, K); ``None`` for 1.
        offsets: What is added to them, (B, K); ``None`` for nothing.
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]
    weights: NDArray[np.float32] | None = None
    offsets: NDArray[np.float32] | None = None


@runtime_checkable
class TextIndex(Protocol):
    """An index that also uses the words of the questions."""

    def get_hits(
        self,
        question_hidden_states: NDArray[np.float32],
        n_docs: int,
        *,
        questions: Sequence[str] | None,
        doc_score_scale: float,
    ) -> Hits:
        """Search for K passages by vectors, (B, D), and the questions, if they are known.

        ``doc_score_scale`` is the model's factor on inner products.
        """
        ...


class PassageScorer(Protocol):
    """Scores passages by reading them together with the question; `Reranker` is one."""

    def score(self, questions: Sequence[str], docs: Sequence[dict[str, Any]]) -> list[NDArray[np.float32]]:
        """The logits of each question's passages; ``docs`` are B dictionaries of lists of their titles and texts."""
        ...


class ReadyIndex:
    """Base of indexes that can be searched as soon as they exist."""

    def init_index(self) -> None:
        """Do nothing."""

    def is_initialized(self) -> bool:
        """Always ready."""
        return True


class NoPassages(ReadyIndex):
    """Returns one empty passage for every question, so that p(y|x) is the generator's own (closed book)."""

    def __len__(self) -> int:
        return 1

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The empty passage, row 0, with a vector of zeros, and no others; see `Index.get_top_docs`."""
        rows = np.full((len(question_hidden_states), n_docs), MISSING, dtype=np.int64)
        rows[:, :1] = 0
        return rows, np.zeros((*rows.shape, question_hidden_states.shape[1]), dtype=np.float32)

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Empty titles and texts."""
        return [{name: [""] * len(rows) for name in ("id", "title", "text", "source")} for rows in doc_ids]


def check_queries(question_hidden_states: NDArray[np.float32], dimension: int) -> None:
    """Check that question vectors fit the index.

    Raises `ShapeError` if they are not a matrix, and `IndexDataError` if they have another dimension or are not
    finite.
    """
    shape = question_hidden_states.shape
    if len(shape) != 2:
        raise ShapeError(f"question_hidden_states has shape {shape}; expected (B, {dimension}).")
    if shape[1] != dimension:
        raise IndexDataError(
            f"question_hidden_states has shape {shape}, but the index holds vectors of dimension "
            f"{dimension}: use the question encoder that belongs to the encoder of the passages."
        )
    if not np.isfinite(question_hidden_states).all():
        raise IndexDataError(
            "question_hidden_states holds NaN or infinity: check the question encoder (a diverged training, or "
            "float16 that overflowed)."
        )


def vectors_of_rows(
    rows: NDArray[np.int64], look_up: Callable[[NDArray[np.int64]], NDArray[np.float32]], dimension: int
) -> NDArray[np.float32]:
    """Gather passage vectors, (B, K, D), each row once, with zeros for missing passages, whose row is -1.

    ``look_up`` returns the vectors, (M, D), of M distinct row numbers in ascending order. Raises `IndexDataError` if
    they are of another dimension.
    """
    vectors = np.zeros((*rows.shape, dimension), dtype=np.float32)
    present = rows >= 0
    if present.any():
        distinct, inverse = np.unique(rows[present], return_inverse=True)
        values = np.asarray(look_up(distinct), dtype=np.float32)
        if values.shape != (len(distinct), dimension):
            raise IndexDataError(
                f"The passages' vectors have shape {values.shape}; expected {(len(distinct), dimension)}: "
                "they do not belong to this index."
            )
        vectors[present] = values[inverse]
    return vectors


def texts_of_rows(
    rows: NDArray[np.int64], look_up: Callable[[NDArray[np.int64]], dict[str, list[Any]]]
) -> list[dict[str, list[Any]]]:
    """Gather passages, each row once, with empty strings for missing passages, whose row is -1.

    ``look_up`` returns, for each column, its values in distinct row numbers in ascending order. The result has one
    dictionary per question, which holds K values for each column.
    """
    distinct, inverse = np.unique(rows, return_inverse=True)  # a missing passage sorts first
    missing = len(distinct) > 0 and distinct[0] == MISSING
    columns = look_up(distinct[1:] if missing else distinct)
    values = {name: ["", *column] if missing else column for name, column in columns.items()}
    return [
        {name: [column[position] for position in positions] for name, column in values.items()}
        for positions in inverse.reshape(rows.shape)
    ]
