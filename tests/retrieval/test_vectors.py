"""Vectors on their way out of an index."""

from __future__ import annotations

import numpy as np
import pytest

from ragweave.errors import IndexDataError
from ragweave.retrieval.index_protocol import vectors_of_rows
from tests.support import retrieval


def test_each_row_is_looked_up_once_and_missing_ones_are_zero() -> None:
    vectors, asked = retrieval.vectors(6), []

    def look_up(rows: np.ndarray) -> np.ndarray:
        asked.append(rows.tolist())
        return vectors[rows]

    rows = np.array([[4, 2, -1], [2, 4, 5]])
    found = vectors_of_rows(rows, look_up, 16)
    assert asked == [[2, 4, 5]]
    assert not found[0, 2].any()
    assert np.array_equal(found[rows >= 0], vectors[[4, 2, 2, 4, 5]])


def test_nothing_is_looked_up_where_nothing_was_found() -> None:
    def look_up(rows: np.ndarray) -> np.ndarray:
        raise AssertionError(rows)

    assert not vectors_of_rows(np.full((2, 3), -1), look_up, 16).any()


def test_vectors_of_another_dimension_are_refused() -> None:
    with pytest.raises(IndexDataError, match=r"shape \(2, 8\); expected \(2, 16\)"):
        vectors_of_rows(np.array([[0, 1]]), lambda rows: np.zeros((len(rows), 8)), 16)
