"""CanonicalIndex over a local folder laid out like wiki_dpr."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ragweave.errors import IndexDataError
from ragweave.retrieval.canonical import CanonicalIndex
from ragweave.retrieval.protocol import Index
from tests.support import models, retrieval

N = len(retrieval.PASSAGES)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Two shards of the small stand-in, without a FAISS file."""
    shards = tmp_path / "data" / "psgs_w100" / "dummy.nq"
    shards.mkdir(parents=True)
    passages = retrieval.dataset(factory=None)
    for number, rows in enumerate((range(4), range(4, N))):
        passages.select(rows).to_parquet(shards / f"train-0000{number}-of-00002.parquet")
    return tmp_path


def opened(folder: Path) -> CanonicalIndex:
    index = CanonicalIndex(models.DIMENSION, dataset=str(folder), use_dummy_dataset=True)
    index.init_index()
    return index


def test_passages_are_found_across_shards(snapshot: Path) -> None:
    index, asked = opened(snapshot), retrieval.questions()
    assert isinstance(index, Index)
    assert len(index) == N
    rows, found = index.get_top_docs(asked, 5)
    assert np.array_equal(rows, retrieval.best_rows(asked, retrieval.vectors(), 5))
    assert np.array_equal(found, retrieval.vectors()[rows])
    docs = index.get_doc_dicts(rows)
    assert [doc["text"] for doc in docs] == [[retrieval.PASSAGES[row][1] for row in own] for own in rows]


def test_passages_that_are_not_there_are_empty(snapshot: Path) -> None:
    index = opened(snapshot)
    rows, found = index.get_top_docs(retrieval.questions(), N + 2)
    assert (rows[:, N:] == -1).all()
    assert not found[:, N:].any()
    for doc in index.get_doc_dicts(rows):
        assert doc["title"][N:] == doc["text"][N:] == ["", ""]
        assert "" not in doc["text"][:N]
    assert index.get_doc_dicts(np.array([[-1]])) == [{"title": [""], "text": [""]}]


def test_a_split_that_is_not_there_is_named(snapshot: Path) -> None:
    with pytest.raises(IndexDataError, match="test-"):
        CanonicalIndex(models.DIMENSION, dataset=str(snapshot), split="test", use_dummy_dataset=True)
