"""DatasetIndex: a data set with a FAISS index, in memory and from disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets
import faiss
import numpy as np
import pytest

from ragweave.errors import IndexDataError, ShapeError
from ragweave.retrieval import passage_rows
from ragweave.retrieval.dataset import DatasetIndex
from ragweave.retrieval.index_protocol import Index
from tests.support import models, retrieval

D = models.DIMENSION
N = len(retrieval.PASSAGES)
KINDS = ("Flat", "HNSW8", "IVF2,Flat", "HNSW8,SQ8")


def of_memory(**fields: Any) -> DatasetIndex:
    return DatasetIndex(D, retrieval.dataset(**fields))


def from_disk(folder: Path, **fields: Any) -> DatasetIndex:
    index = DatasetIndex.load_from_disk(D, *retrieval.saved_dataset(folder, **fields))
    index.init_index()
    return index


def test_it_is_an_index() -> None:
    index = of_memory()
    assert isinstance(index, Index)
    assert index.is_initialized()
    assert len(index) == N


def test_finds_the_largest_inner_products() -> None:
    asked, vectors = retrieval.questions(), retrieval.vectors()
    rows, found = of_memory().get_top_docs(asked, 4)
    assert (rows.dtype, found.dtype) == (np.int64, np.float32)
    assert np.array_equal(rows, retrieval.best_rows(asked, vectors, 4))
    assert np.array_equal(found, vectors[rows])


def test_rows_that_are_not_there_have_no_vector_and_no_text() -> None:
    index, asked = of_memory(), retrieval.questions()
    rows, found = index.get_top_docs(asked, N + 3)
    assert rows.shape == (len(asked), N + 3)
    assert (rows[:, :N] >= 0).all()
    assert (rows[:, N:] == -1).all()
    assert not found[:, N:].any()
    for doc in index.get_doc_dicts(rows):
        assert doc["title"][N:] == doc["text"][N:] == [""] * 3
        assert sorted(doc["text"][:N]) == sorted(text for _, text in retrieval.PASSAGES)


def test_nothing_but_missing_rows() -> None:
    assert of_memory().get_texts(np.array([[-1, -1]])) == [{"title": ["", ""], "text": ["", ""]}]


def test_dictionaries_hold_every_column_and_texts_leave_the_vectors_out() -> None:
    index = of_memory(source=[f"source {number}" for number in range(N)])
    rows = np.array([[1, 0, -1]])
    (doc,) = index.get_doc_dicts(rows)
    assert doc["source"] == ["source 1", "source 0", ""]
    assert np.array_equal(doc["embeddings"][:2], retrieval.vectors()[[1, 0]])
    assert not doc["embeddings"][2].any()
    assert set(index.get_texts(rows)[0]) == {"title", "text", "source"} == set(doc) - {"embeddings"}


def test_one_row_of_ids_gives_a_dictionary_for_each_passage() -> None:
    docs = of_memory().get_doc_dicts(np.array([3, -1, 0]))
    assert [doc["title"] for doc in docs] == [retrieval.PASSAGES[3][0], "", retrieval.PASSAGES[0][0]]
    assert np.array_equal(docs[0]["embeddings"], retrieval.vectors()[3])


def test_the_data_set_carries_its_faiss_index(tmp_path: Path) -> None:
    index = DatasetIndex.load_from_disk(D, *retrieval.saved_dataset(tmp_path))
    index.init_index()
    assert index.dataset.get_index("embeddings").faiss_index is index.faiss_index
    question = retrieval.vectors()[:2]
    _, rows = index.dataset.search_batch("embeddings", question, 3)
    assert np.array_equal(rows, index.get_top_docs(question, 3)[0])


def test_columns_with_a_decoding_of_their_own_are_decoded() -> None:
    when = datasets.Dataset.from_dict({"pages": [[number, number + 1] for number in range(N)]})
    passages = datasets.concatenate_datasets([retrieval.dataset(factory=None), when], axis=1)
    passages = passages.select([5, 3, 1])
    passages.add_faiss_index("embeddings", metric_type=faiss.METRIC_INNER_PRODUCT)
    found = DatasetIndex(D, passages).get_doc_dicts(np.array([[2, 0, -1]]))
    assert found[0]["pages"] == [[1, 2], [5, 6], ""]
    assert found[0]["title"] == [retrieval.PASSAGES[1][0], retrieval.PASSAGES[5][0], ""]


def test_data_sets_put_together_of_several_parts() -> None:
    parts = [retrieval.dataset(factory=None).select(range(*ends)) for ends in ((0, 1), (1, 4), (4, N))]
    passages = datasets.concatenate_datasets(parts)
    passages.add_faiss_index("embeddings", metric_type=faiss.METRIC_INNER_PRODUCT)
    index = DatasetIndex(D, passages)
    rows, found = index.get_top_docs(retrieval.questions(), N)
    assert np.array_equal(found, retrieval.vectors()[rows])
    for doc, row in zip(index.get_doc_dicts(rows), rows, strict=True):
        assert doc["text"] == [retrieval.PASSAGES[number][1] for number in row]


@pytest.mark.parametrize("second", [[1.0], None])
def test_vectors_of_several_lengths_are_refused(tmp_path: Path, second: list[float] | None) -> None:
    columns = {"title": ["a", "b"], "text": ["x", "y"], "embeddings": [[1.0] * D, second]}
    faiss_index = faiss.IndexFlatIP(D)
    faiss_index.add(np.ones((2, D), np.float32))
    faiss.write_index(faiss_index, str(tmp_path / "index.faiss"))
    index = DatasetIndex(D, datasets.Dataset.from_dict(columns), tmp_path / "index.faiss")
    index.init_index()
    with pytest.raises(IndexDataError, match="vectors of one length"):
        index.get_top_docs(np.ones((1, D), np.float32), 2)


def test_the_callers_format_and_selection_are_respected() -> None:
    passages = retrieval.dataset(factory=None).select([4, 2, 0])
    passages.add_faiss_index("embeddings", metric_type=faiss.METRIC_INNER_PRODUCT)
    passages.set_format("numpy", columns=["embeddings"])
    index = DatasetIndex(D, passages)
    rows, found = index.get_top_docs(retrieval.vectors()[[2]] * 10, 1)
    assert rows.tolist() == [[1]]
    assert np.array_equal(found[0, 0], retrieval.vectors()[2])
    assert index.get_doc_dicts(rows)[0]["title"] == ['"Rome"']
    assert passages.format["type"] == "numpy"
    assert passages.list_indexes() == ["embeddings"]


class Uncopied(faiss.IndexFlatIP):
    def __deepcopy__(self, memo: Any) -> Uncopied:
        pytest.fail("the index is copied, which may be gigabytes")

    __copy__ = __getstate__ = __deepcopy__


def test_the_faiss_index_is_never_copied() -> None:
    passages = retrieval.dataset()
    faiss_index = Uncopied(D)
    faiss_index.add(retrieval.vectors())
    passages.get_index("embeddings").faiss_index = faiss_index
    index = DatasetIndex(D, passages)
    assert index.faiss_index is faiss_index
    (doc,) = index.get_texts(np.array([[0, 2, 1]]))
    assert doc["title"] == [retrieval.PASSAGES[row][0] for row in (0, 2, 1)]


@pytest.mark.parametrize("column", ["title", "text", "embeddings"])
def test_a_missing_column_is_named(column: str) -> None:
    passages = retrieval.dataset(factory=None).remove_columns(column)
    with pytest.raises(IndexDataError, match=f"lacks the column.s. {column}; it has"):
        DatasetIndex(D, passages)


def test_a_dataset_without_index_is_refused() -> None:
    with pytest.raises(IndexDataError, match="add_faiss_index"):
        DatasetIndex(D, retrieval.dataset(factory=None))


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(IndexDataError, match="empty"):
        DatasetIndex(D, retrieval.dataset(factory=None).select([]), "some.faiss")


def test_a_dictionary_of_splits_is_refused() -> None:
    splits = datasets.DatasetDict({"train": retrieval.dataset(factory=None)})
    with pytest.raises(IndexDataError, match="is a DatasetDict; give"):
        DatasetIndex(D, splits)


def test_another_dimension_is_refused() -> None:
    with pytest.raises(IndexDataError, match=r"dimension 16; expected 32.*retrieval_vector_size"):
        DatasetIndex(32, retrieval.dataset())
    with pytest.raises(IndexDataError, match="question encoder"):
        of_memory().get_top_docs(np.zeros((1, 8), np.float32), 2)
    with pytest.raises(ShapeError):
        of_memory().get_top_docs(np.zeros(D, np.float32), 2)


def test_an_index_of_other_passages_is_refused(tmp_path: Path) -> None:
    _, index_path = retrieval.saved_dataset(tmp_path)
    index = DatasetIndex(D, retrieval.dataset(5, factory=None), index_path)
    with pytest.raises(IndexDataError, match="7 vectors, but there are 5 passages"):
        index.init_index()


def test_a_column_that_is_not_what_was_indexed_is_refused() -> None:
    passages = retrieval.dataset(embeddings=[[0.0, 1.0]] * N, factory=None)
    passages.add_faiss_index_from_external_arrays(retrieval.vectors(), "embeddings", metric_type=0)
    with pytest.raises(IndexDataError, match=r"expected \(.*, 16\)"):
        DatasetIndex(D, passages).get_top_docs(retrieval.questions(), 2)


def test_an_index_of_distances_is_warned_of() -> None:
    passages = retrieval.dataset(factory=None)
    passages.add_faiss_index("embeddings")  # Euclidean, the default of the datasets library
    with pytest.warns(UserWarning, match="METRIC_INNER_PRODUCT"):
        DatasetIndex(D, passages)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_from_disk_finds_what_memory_finds(tmp_path: Path, kind: str) -> None:
    n_passages = 200
    asked = retrieval.questions(4)
    index = from_disk(tmp_path, n_passages=n_passages, factory=kind)
    rows, found = index.get_top_docs(asked, 5)
    expected, expected_vectors = of_memory(n_passages=n_passages, factory=kind).get_top_docs(asked, 5)
    assert np.array_equal(rows, expected)
    assert np.array_equal(found, expected_vectors)
    assert index.get_doc_dicts(rows)[0]["title"][0] == retrieval.PASSAGES[rows[0, 0] % N][0]


def test_nothing_of_the_index_is_read_before_it_is_needed(tmp_path: Path) -> None:
    index = DatasetIndex.load_from_disk(D, *retrieval.saved_dataset(tmp_path))
    assert not index.is_initialized()
    assert index.faiss_index is None
    with pytest.raises(IndexDataError, match="init_index"):
        index.get_top_docs(retrieval.questions(), 2)
    index.init_index()
    loaded = index.faiss_index
    index.init_index()
    assert index.faiss_index is loaded


def test_missing_paths_are_named(tmp_path: Path) -> None:
    dataset_path, index_path = retrieval.saved_dataset(tmp_path)
    with pytest.raises(IndexDataError, match="needs passages_path"):
        DatasetIndex.load_from_disk(D, None, index_path)
    with pytest.raises(IndexDataError, match="and index_path"):
        DatasetIndex.load_from_disk(D, dataset_path, None)
    with pytest.raises(IndexDataError, match="passages_path does not exist"):
        DatasetIndex.load_from_disk(D, tmp_path / "elsewhere", index_path)
    with pytest.raises(IndexDataError, match="index_path does not exist"):
        DatasetIndex.load_from_disk(D, dataset_path, tmp_path / "elsewhere")


def test_a_folder_instead_of_a_faiss_file(tmp_path: Path) -> None:
    dataset_path, _ = retrieval.saved_dataset(tmp_path)
    with pytest.raises(IndexDataError, match="no FAISS file"):
        DatasetIndex.load_from_disk(D, dataset_path, tmp_path).init_index()


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.95])
@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_faiss_file(tmp_path: Path, kind: str, kept: float) -> None:
    dataset_path, index_path = retrieval.saved_dataset(tmp_path, factory=kind)
    content = Path(index_path).read_bytes()
    Path(index_path).write_bytes(content[: int(kept * len(content))])
    index = DatasetIndex.load_from_disk(D, dataset_path, index_path)
    with pytest.raises(IndexDataError, match="not a complete FAISS index"):
        index.init_index()
    assert not index.is_initialized()


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    dataset_path, index_path = retrieval.saved_dataset(tmp_path)
    Path(index_path).write_text("not an index " * 100, encoding="utf-8")
    with pytest.raises(IndexDataError, match="not a complete FAISS index"):
        DatasetIndex.load_from_disk(D, dataset_path, index_path).init_index()


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    _, index_path = retrieval.saved_dataset(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(IndexDataError, match="save_to_disk"):
        DatasetIndex.load_from_disk(D, tmp_path / "empty", index_path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_dataset(tmp_path: Path, kept: float) -> None:
    dataset_path, index_path = retrieval.saved_dataset(tmp_path)
    (arrow,) = Path(dataset_path).glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[: int(kept * arrow.stat().st_size)])
    with pytest.raises(IndexDataError, match="save_to_disk"):
        DatasetIndex.load_from_disk(D, dataset_path, index_path)


def test_a_dataset_without_its_arrow_file(tmp_path: Path) -> None:
    dataset_path, index_path = retrieval.saved_dataset(tmp_path)
    for arrow in Path(dataset_path).glob("*.arrow"):
        arrow.unlink()
    with pytest.raises(IndexDataError):
        DatasetIndex.load_from_disk(D, dataset_path, index_path)


def test_splits_on_disk_are_refused(tmp_path: Path) -> None:
    _, index_path = retrieval.saved_dataset(tmp_path)
    datasets.DatasetDict({"train": retrieval.dataset(factory=None)}).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(IndexDataError, match="one split"):
        DatasetIndex.load_from_disk(D, tmp_path / "splits", index_path)


def test_an_open_index_outlives_its_files(tmp_path: Path) -> None:
    index = from_disk(tmp_path)
    expected = index.get_top_docs(retrieval.questions(), 3)[0]
    shutil.rmtree(tmp_path / "passages")
    (tmp_path / "passages.faiss").unlink()
    rows, _ = index.get_top_docs(retrieval.questions(), 3)
    assert np.array_equal(rows, expected)
    assert index.get_doc_dicts(rows)[0]["text"][0]


def test_the_private_row_numbers_of_a_data_set_are_still_there(monkeypatch):
    """DatasetRows reads Dataset._indices; without that attribute it copies the passages."""
    columns = {"title": ["a", "b"], "text": ["x", "y"], "embeddings": [[1.0], [2.0]]}
    shuffled = datasets.Dataset.from_dict(columns).select([1, 0])
    assert vars(shuffled)["_indices"].table[0].to_pylist() == [1, 0]
    rows = np.array([0, 1])
    expected = {"title": ["b", "a"], "text": ["y", "x"]}
    assert passage_rows.DatasetRows(shuffled).texts(rows) == expected
    monkeypatch.setattr(passage_rows, "_row_numbers", lambda dataset: passage_rows._UNKNOWN)
    assert passage_rows.DatasetRows(shuffled).texts(rows) == expected
