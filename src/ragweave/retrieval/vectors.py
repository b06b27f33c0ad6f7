"""Vectors on their way into and out of an index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import IndexDataError, ShapeError
from ragweave.retrieval.index_protocol import INDEX_COLUMN


def check_queries(question_hidden_states: NDArray[np.float32], dimension: int) -> None:
    """Check that question vectors fit the index.

    Raises:
        ShapeError: They are not a matrix.
        IndexDataError: They are of another dimension than the index, or not all numbers.
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
            "question_hidden_states holds NaN or infinity, with which nothing can be found: look at the "
            "question encoder (a diverged training, or float16 that overflowed)."
        )


def vectors_of_rows(
    rows: NDArray[np.int64], look_up: Callable[[NDArray[np.int64]], NDArray[np.float32]], dimension: int
) -> NDArray[np.float32]:
    """Gather passage vectors, each row once, zeros for missing passages.

    Args:
        rows: Row numbers, (B, K), -1 for none.
        look_up: Gives the vectors, (M, D), of M distinct row numbers in rising order.
        dimension: D.

    Returns:
        Vectors, (B, K, D).

    Raises:
        IndexDataError: The vectors that were looked up are of another dimension.
    """
    vectors = np.zeros((*rows.shape, dimension), dtype=np.float32)
    present = rows >= 0
    if present.any():
        distinct, inverse = np.unique(rows[present], return_inverse=True)
        found = np.asarray(look_up(distinct), dtype=np.float32)
        if found.shape != (len(distinct), dimension):
            raise IndexDataError(
                f"The passages' vectors have shape {found.shape}; expected {(len(distinct), dimension)}: "
                "they do not belong to this index."
            )
        vectors[present] = found[inverse]
    return vectors


def matrix(lists: Any) -> NDArray[np.float32]:
    """A column of M vectors, an Arrow array of lists of any kind, as (M, D).

    Raises:
        IndexDataError: They are no vectors, or not of one length.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        lengths = pc.list_value_length(lists).unique().to_pylist()
        values = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
    except (pa.ArrowException, ValueError) as error:
        raise IndexDataError(f"The column '{INDEX_COLUMN}' holds {lists.type}, and no vectors.") from error
    if len(lengths) != 1 or lengths[0] is None:
        raise IndexDataError(f"The vectors in column '{INDEX_COLUMN}' are missing or of several lengths.")
    return values.reshape(len(lists), -1)
