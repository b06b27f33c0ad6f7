"""MemoryIndex: exact search over a matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragweave import MemoryIndex
from ragweave.errors import IndexDataError, ShapeError
from ragweave.retrieval.index_protocol import Index
from tests.support import retrieval

TITLES, TEXTS = zip(*retrieval.PASSAGES, strict=True)


def memory_index() -> MemoryIndex:
    return MemoryIndex(TEXTS, retrieval.vectors(), TITLES)


def test_it_is_an_index() -> None:
    index = memory_index()
    index.init_index()
    assert isinstance(index, Index)
    assert index.is_initialized()
    assert len(index) == len(TEXTS)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 12), st.integers(0, 99))
def test_finds_the_largest_inner_products(n_questions: int, n_passages: int, n_docs: int, seed: int) -> None:
    vectors = retrieval.vectors(n_passages, seed=seed)
    asked = retrieval.questions(n_questions, seed=seed + 1)
    rows, found = MemoryIndex([f"text {n}" for n in range(n_passages)], vectors).get_top_docs(asked, n_docs)
    hits = min(n_docs, n_passages)
    assert rows.shape == (n_questions, n_docs)
    assert found.shape == (n_questions, n_docs, vectors.shape[1])
    assert (rows.dtype, found.dtype) == (np.int64, np.float32)
    assert np.array_equal(rows[:, :hits], retrieval.best_rows(asked, vectors, hits))
    assert np.array_equal(found[:, :hits], vectors[rows[:, :hits]])
    assert (rows[:, hits:] == -1).all()
    assert not found[:, hits:].any()


def test_titles_and_texts_of_rows() -> None:
    found = memory_index().get_doc_dicts(np.array([[2, 0, -1], [-1, 5, 2]]))
    assert [doc["title"] for doc in found] == [['"Rome"', "Paris", ""], ["", "", '"Rome"']]
    assert [doc["text"] for doc in found] == [[TEXTS[2], TEXTS[0], ""], ["", TEXTS[5], TEXTS[2]]]


def test_titles_may_be_left_out() -> None:
    found = MemoryIndex(TEXTS, retrieval.vectors()).get_doc_dicts(np.array([[1]]))
    assert found == [{"title": [""], "text": [TEXTS[1]]}]


def test_other_number_types_are_accepted() -> None:
    index = MemoryIndex(TEXTS, retrieval.vectors().astype(np.float64))
    asked = retrieval.questions()
    rows, found = index.get_top_docs(asked.astype(np.float64), 3)
    assert np.array_equal(rows, memory_index().get_top_docs(asked, 3)[0])
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("texts", "vectors", "titles"),
    [
        ([], np.zeros((0, 16)), None),
        (TEXTS, np.zeros((3, 16)), None),
        (TEXTS, np.zeros(len(TEXTS)), None),
        (TEXTS, retrieval.vectors(), TITLES[:-1]),
    ],
)
def test_refuses_what_does_not_belong_together(texts: list[str], vectors: np.ndarray, titles: object) -> None:
    with pytest.raises(IndexDataError):
        MemoryIndex(texts, vectors, titles)


def test_refuses_questions_of_another_shape() -> None:
    with pytest.raises(ShapeError, match=r"expected \(B, 16\)"):
        memory_index().get_top_docs(retrieval.questions()[0], 2)
    with pytest.raises(IndexDataError, match="dimension 16"):
        memory_index().get_top_docs(np.zeros((2, 8), np.float32), 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_questions_that_are_no_numbers(value: float) -> None:
    asked = retrieval.questions()
    asked[1, 3] = value
    with pytest.raises(IndexDataError, match="NaN or infinity"):
        memory_index().get_top_docs(asked, 2)
