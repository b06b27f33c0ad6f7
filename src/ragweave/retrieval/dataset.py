"""An index over a data set of the datasets library with a FAISS index: the user's own, or one from disk."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Self

import faiss
from datasets import Dataset

from ragweave.errors import DatasetTypeError, IndexDataError
from ragweave.retrieval.faiss_index import FaissIndex, check_faiss, read_faiss
from ragweave.retrieval.index_protocol import INDEX_COLUMN
from ragweave.retrieval.passage_rows import DatasetRows, check_columns, load_saved, with_index

DATASET_FOLDER = "hf_dataset"
INDEX_FILE = "hf_dataset_index.faiss"


class DatasetIndex(FaissIndex):
    """Passages in a `datasets.Dataset` with the columns title, text and embeddings, searched with FAISS.

    Attributes:
        dataset: The passages; once the FAISS index is loaded, it is attached as ``dataset.get_index("embeddings")``.

    Args:
        vector_size: D.
        dataset: The passages. Without ``index_path`` it carries a FAISS index on its column "embeddings"
            (``dataset.add_faiss_index("embeddings", metric_type=faiss.METRIC_INNER_PRODUCT)``).
        index_path: FAISS file to load at the first search.

    Raises:
        IndexDataError: The data set is empty, or lacks columns or the index.
    """

    def __init__(
        self, vector_size: int, dataset: Dataset, index_path: str | PathLike[str] | None = None
    ) -> None:
        if not isinstance(dataset, Dataset):
            raise DatasetTypeError(
                f"indexed_dataset is a {type(dataset).__name__}; give a datasets.Dataset, one split of a DatasetDict."
            )
        check_columns(dataset.column_names, "The data set")
        if len(dataset) == 0:
            raise IndexDataError("The data set is empty; there is nothing to retrieve.")
        self.index_path = None if index_path is None else Path(index_path)
        self.dataset = dataset
        self.saved_at: Path | None = None
        # with_format copies a FAISS index.
        self.passages = with_index(dataset, None).with_format(None)
        super().__init__(vector_size, DatasetRows(self.passages))
        if self.index_path is None:
            if INDEX_COLUMN not in dataset.list_indexes():
                raise IndexDataError(
                    "The data set has no FAISS index: call dataset.add_faiss_index('embeddings', "
                    "metric_type=faiss.METRIC_INNER_PRODUCT), or give the path of a saved one as index_path."
                )
            self._faiss = dataset.get_index(INDEX_COLUMN).faiss_index
            check_faiss(self._faiss, vector_size=vector_size, n_passages=len(self))

    @classmethod
    def load_from_disk(
        cls,
        vector_size: int,
        dataset_path: str | PathLike[str] | None,
        index_path: str | PathLike[str] | None,
    ) -> Self:
        """Open passages and index that the datasets library saved.

        Args:
            vector_size: D.
            dataset_path: Folder that ``dataset.save_to_disk`` wrote; memory-mapped.
            index_path: File that ``dataset.get_index("embeddings").save`` wrote.

        Raises:
            IndexDataError: A path is missing or holds something else.
        """
        if dataset_path is None or index_path is None:
            raise IndexDataError(
                "index_name='custom' needs passages_path (a folder from dataset.save_to_disk) and index_path "
                "(a file from dataset.get_index('embeddings').save)."
            )
        for name, path in (("passages_path", dataset_path), ("index_path", index_path)):
            if not Path(path).exists():
                raise IndexDataError(f"{name} does not exist: {path}")
        index = cls(vector_size, load_saved(Path(dataset_path)), index_path)
        index.saved_at = Path(dataset_path)
        return index

    def save_index_files(self, folder: Path, *, copy: bool) -> dict[str, str]:
        """Save passages and FAISS index into a folder; returns the fields of RagConfig that open them again.

        Without ``copy``, the fields name the files that the index was opened from, if there are any.
        """
        if not copy and self.saved_at is not None and self.index_path is not None:
            paths = {"passages_path": self.saved_at, "index_path": self.index_path}
            return {"index_name": "custom", **{name: str(path.absolute()) for name, path in paths.items()}}
        self.init_index()
        self.passages.save_to_disk(str(folder / DATASET_FOLDER))
        faiss.write_index(self.faiss_index, str(folder / INDEX_FILE))
        return {"index_name": "custom", "passages_path": DATASET_FOLDER, "index_path": INDEX_FILE}

    def init_index(self) -> None:
        """Load the FAISS file, memory-mapped if possible; `IndexDataError` if it is damaged or for other passages."""
        if self._faiss is None and self.index_path is not None:
            index = read_faiss(self.index_path)
            check_faiss(index, vector_size=self.vector_size, n_passages=len(self))
            self._faiss = index
            self.dataset = with_index(self.dataset, index)


CustomHFIndex = DatasetIndex  # transformers' name
