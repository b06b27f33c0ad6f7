"""CanonicalIndex over a local folder laid out like wiki_dpr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragweave import RagConfig
from ragweave.errors import IndexDataError
from ragweave.retrieval.canonical import CanonicalIndex
from ragweave.retrieval.protocol import Index
from ragweave.retrieval.retriever import build_index
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


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A stand-in of wiki_dpr as it is released: shards of several row groups, and both FAISS files."""
    import faiss
    import pyarrow as pa
    import pyarrow.parquet as pq

    own = np.random.default_rng(0).standard_normal((3000, models.DIMENSION)).astype(np.float32)
    shards = tmp_path / "data" / "psgs_w100" / "nq"
    shards.mkdir(parents=True)
    for number, rows in enumerate((range(1300), range(1300, 3000))):
        table = pa.table(
            {
                "id": [str(row + 1) for row in rows],
                "text": [f"text {row}" for row in rows],
                "title": [f"title {row}" for row in rows],
                "embeddings": pa.array([own[row].tolist() for row in rows], type=pa.list_(pa.float32())),
            }
        )
        pq.write_table(table, shards / f"train-0000{number}-of-00002.parquet", row_group_size=500)
    (tmp_path / "index").mkdir()
    for factory, name in (
        ("HNSW128,SQ8", "HNSW128_SQ8-IP"),
        ("IVF16_HNSW16,PQ4x4", "IVF4096_HNSW128_PQ128-IP"),
    ):
        index = faiss.index_factory(models.DIMENSION, factory, faiss.METRIC_INNER_PRODUCT)
        index.train(own)
        index.add(own)
        faiss.write_index(index, str(tmp_path / "index" / f"psgs_w100.nq.{name}-train.faiss"))
    return tmp_path


@pytest.mark.parametrize("index_name", ["exact", "compressed"])
def test_released_layout(released: Path, index_name: str) -> None:
    config = RagConfig(index_name=index_name, dataset=str(released), retrieval_vector_size=models.DIMENSION)
    index = build_index(config)
    index.init_index()
    asked = retrieval.questions()
    rows, found = index.get_top_docs(asked, 4)
    assert np.array_equal(rows, index.faiss_index.search(asked, 4)[1])
    assert found == pytest.approx(
        np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)[rows]
    )
    assert index.get_doc_dicts(rows)[0]["title"] == [f"title {row}" for row in rows[0]]


def test_only_the_row_groups_of_the_hits_are_read(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    read: list[tuple[int, tuple[str, ...]]] = []
    genuine = pq.ParquetFile.read_row_group

    def spy(self: Any, number: int, columns: list[str]) -> Any:
        read.append((number, tuple(columns)))
        return genuine(self, number, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    index = CanonicalIndex(models.DIMENSION, dataset=str(released), index_name="exact")
    assert read == []
    index.get_doc_dicts(np.array([[1310, 1320], [1330, -1]]))
    assert sorted(read) == [(0, ("id",)), (0, ("text",)), (0, ("title",))]


def test_index_of_other_passages_is_refused(released: Path, tmp_path: Path) -> None:
    (released / "data" / "psgs_w100" / "nq" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(IndexDataError, match="3000 vectors"):
        CanonicalIndex(models.DIMENSION, dataset=str(released), index_name="exact").init_index()


def test_truncated_files_are_named(released: Path) -> None:
    file = released / "index" / "psgs_w100.nq.HNSW128_SQ8-IP-train.faiss"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(IndexDataError, match="no FAISS index"):
        CanonicalIndex(models.DIMENSION, dataset=str(released), index_name="exact").init_index()
    shard = released / "data" / "psgs_w100" / "nq" / "train-00000-of-00002.parquet"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(IndexDataError, match="no whole Parquet file"):
        CanonicalIndex(models.DIMENSION, dataset=str(released), index_name="exact")


def test_other_layouts_of_the_same_columns(released: Path) -> None:
    for path in (released / "data" / "psgs_w100" / "nq").iterdir():
        path.rename(released / path.name)
    (released / "data" / "psgs_w100" / "nq").rmdir()
    (released / "data" / "psgs_w100").rmdir()
    index = CanonicalIndex(models.DIMENSION, dataset=str(released), index_name="exact")
    index.init_index()
    assert len(index) == 3000


def test_data_set_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(IndexDataError, match="neither a folder nor to be had from the hub"):
        CanonicalIndex(models.DIMENSION, dataset="nobody/nothing")
