"""An index over a data set of the datasets library with a FAISS index: the user's own, or one from disk."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import IndexDataError
from ragweave.retrieval.arrow import DatasetRows
from ragweave.retrieval.faiss_files import check_faiss, read_faiss
from ragweave.retrieval.index_protocol import INDEX_COLUMN, REQUIRED_COLUMNS
from ragweave.retrieval.passage_rows import texts_of_rows
from ragweave.retrieval.vectors import check_queries, vectors_of_rows

if TYPE_CHECKING:
    from os import PathLike

    from datasets import Dataset


class DatasetIndex:
    """Passages in a `datasets.Dataset` with the columns title, text and embeddings, searched with FAISS.

    Args:
        vector_size: D.
        dataset: The passages. Without ``index_path`` it carries a FAISS index on its column "embeddings"
            (``dataset.add_faiss_index("embeddings", metric_type=faiss.METRIC_INNER_PRODUCT)``).
        index_path: FAISS file to load when searching begins.

    Raises:
        IndexDataError: The data set is empty, or lacks columns or the index.
    """

    def __init__(
        self, vector_size: int, dataset: Dataset, index_path: str | PathLike[str] | None = None
    ) -> None:
        self.vector_size = vector_size
        self.index_path = None if index_path is None else Path(index_path)
        self.dataset = _checked(dataset)
        # with_format copies the whole FAISS index along: not of this twin, which has none.
        twin = copy.copy(dataset)
        twin._indexes = {}
        self.passages = twin.with_format(None)
        self._rows = DatasetRows(self.passages)
        if self.index_path is None:
            if INDEX_COLUMN not in dataset.list_indexes():
                raise IndexDataError(
                    "The data set has no FAISS index: call dataset.add_faiss_index('embeddings', "
                    "metric_type=faiss.METRIC_INNER_PRODUCT), or give the path of a saved one as index_path."
                )
            self._faiss = dataset.get_index(INDEX_COLUMN).faiss_index
            check_faiss(self._faiss, vector_size=vector_size, n_passages=len(self))
        else:
            self._faiss = None

    def __len__(self) -> int:
        return len(self.passages)

    @classmethod
    def load_from_disk(
        cls,
        vector_size: int,
        dataset_path: str | PathLike[str] | None,
        index_path: str | PathLike[str] | None,
    ) -> Self:
        """Open passages and index that were saved with the datasets library.

        Args:
            vector_size: D.
            dataset_path: Folder that ``dataset.save_to_disk`` wrote; memory-mapped.
            index_path: File that ``dataset.get_index("embeddings").save`` wrote.

        Raises:
            IndexDataError: A path is missing or holds something else.
        """
        from datasets import load_from_disk

        if dataset_path is None or index_path is None:
            raise IndexDataError(
                "index_name='custom' needs passages_path (a folder from dataset.save_to_disk) and index_path "
                "(a file from dataset.get_index('embeddings').save)."
            )
        for name, path in (("passages_path", dataset_path), ("index_path", index_path)):
            if not Path(path).exists():
                raise IndexDataError(f"{name} does not exist: {path}")
        try:
            dataset = load_from_disk(str(dataset_path))
        except (OSError, ValueError) as error:
            raise IndexDataError(
                f"{dataset_path} is no data set saved with dataset.save_to_disk: {error}"
            ) from error
        return cls(vector_size, dataset, index_path)

    @property
    def faiss_index(self) -> Any:
        """The FAISS index, or ``None`` before `init_index`."""
        return self._faiss

    def init_index(self) -> None:
        """Load the FAISS file, memory-mapped where its kind allows it.

        Raises:
            IndexDataError: The file is damaged, of another dimension, or of another number of passages.
        """
        if self._faiss is None and self.index_path is not None:
            index = read_faiss(self.index_path)
            check_faiss(index, vector_size=self.vector_size, n_passages=len(self))
            self._faiss = index

    def is_initialized(self) -> bool:
        """Whether the FAISS index is there."""
        return self._faiss is not None

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 5
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the K best rows and their vectors; see `Index.get_top_docs`."""
        if self._faiss is None:
            raise IndexDataError("The index is not loaded yet: call init_index() first.")
        check_queries(question_hidden_states, self.vector_size)
        queries = np.ascontiguousarray(question_hidden_states, dtype=np.float32)
        _, rows = self._faiss.search(queries, n_docs)
        return rows, vectors_of_rows(rows, self._rows.vectors, self.vector_size)

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look passages up; see `Index.get_doc_dicts`. All columns but the vectors are returned."""
        return texts_of_rows(doc_ids, self._rows.texts)


def _checked(dataset: Dataset) -> Dataset:
    from datasets import Dataset

    if not isinstance(dataset, Dataset):
        raise IndexDataError(
            f"indexed_dataset is a {type(dataset).__name__}; give a datasets.Dataset (of a DatasetDict, one "
            "split)."
        )
    missing = [name for name in REQUIRED_COLUMNS if name not in dataset.column_names]
    if missing:
        raise IndexDataError(
            f"The data set lacks the column(s) {', '.join(missing)}; it has "
            f"{', '.join(dataset.column_names)}. Passages need title, text and embeddings."
        )
    if len(dataset) == 0:
        raise IndexDataError("The data set is empty; there is nothing to retrieve.")
    return dataset
