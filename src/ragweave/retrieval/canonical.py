"""wiki_dpr and data sets like it: Parquet shards and a FAISS file, read by path, without a loading script."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from datasets import Dataset

from ragweave.errors import ConfigurationError, IndexDataError
from ragweave.retrieval import data_files
from ragweave.retrieval.faiss_index import FaissIndex, check_faiss, read_faiss
from ragweave.retrieval.passage_rows import ParquetRows, SavedRows, with_index

# A small data set, such as wiki_dpr's stand-in of 10,000 passages, needs no FAISS file: up to this many
# passages, an exact index is built in memory.
MOST_BUILT_IN_MEMORY = 200_000
_BUILT_AT_ONCE = 8192


class CanonicalHFIndex(FaissIndex):
    """``index_name="exact"`` and ``"compressed"``: wiki_dpr, or a data set with the same columns.

    Opening reads the footers of Parquet files; `init_index` maps the FAISS file; a search reads the row groups
    of its hits, only the columns that it returns.

    Args:
        vector_size: D.
        dataset_name: Folder of a data set (a snapshot of a hub repository, a folder of Parquet files, or one that
            ``save_to_disk`` wrote), or else its name on the hub.
        dataset_split: Split of the data set.
        index_name: "exact" or "compressed", the default: which of wiki_dpr's FAISS files to use; for another data
            set, the one with this kind in its name.
        index_path: FAISS file to use instead: a path, or a path inside the data set's folder or repository.
        use_dummy_dataset: Use wiki_dpr's small stand-in.
        dataset_revision: Revision on the hub.

    Raises:
        IndexDataError: Files are missing or damaged.
    """

    def __init__(
        self,
        vector_size: int,
        dataset_name: str = "wiki_dpr",
        dataset_split: str = "train",
        index_name: str | None = None,
        index_path: str | None = None,
        use_dummy_dataset: bool = False,
        dataset_revision: str | None = None,
    ) -> None:
        kind = _index_kind(index_name)
        source = data_files.find(
            dataset_name,
            index_name=kind,
            index_path=index_path,
            use_dummy_dataset=use_dummy_dataset,
            revision=dataset_revision,
        )
        self.index_path = source.faiss_file()
        self.passages = (
            SavedRows(source.folder, dataset_split)
            if SavedRows.is_folder_of(source.folder)
            else ParquetRows(source.shards(dataset_split))
        )
        super().__init__(vector_size, self.passages)
        if not len(self):
            raise IndexDataError(f"The data set in {source.folder} is empty; there is nothing to retrieve.")
        if self.index_path is None and len(self) > MOST_BUILT_IN_MEMORY:
            raise IndexDataError(
                f"There is no FAISS file for index_name={kind!r} in {source.folder}: give index_path, or "
                "download the data set's index folder."
            )

    @property
    def dataset(self) -> Dataset:
        """The passages as a `datasets.Dataset`, with the FAISS index attached once it is loaded."""
        return with_index(self.passages.dataset, self._faiss)

    def init_index(self) -> None:
        """Map the FAISS file, or build an exact index for a small data set; `IndexDataError` if it is damaged."""
        if self._faiss is not None:
            return
        index = self._built() if self.index_path is None else read_faiss(self.index_path)
        check_faiss(index, vector_size=self.vector_size, n_passages=len(self))
        self._faiss = index

    def _built(self) -> Any:
        index = faiss.IndexFlatIP(self.vector_size)
        for start in range(0, len(self), _BUILT_AT_ONCE):
            vectors = self.passages.vectors(np.arange(start, min(start + _BUILT_AT_ONCE, len(self))))
            if vectors.shape[1] != self.vector_size:
                raise IndexDataError(
                    f"The passages' vectors are of dimension {vectors.shape[1]}; expected {self.vector_size}, "
                    "the configuration's retrieval_vector_size."
                )
            index.add(vectors)
        return index


def _index_kind(index_name: str | None) -> str:
    """Resolve an index name; the specification also calls the default index by the name of its data set."""
    if index_name in (None, "wiki_dpr"):
        return "compressed"
    if index_name not in data_files.FAISS_KINDS:
        raise ConfigurationError(
            f"Unknown index_name {index_name!r}. Choose one of: custom, legacy, {', '.join(data_files.FAISS_KINDS)}."
        )
    return str(index_name)
