"""wiki_dpr and data sets like it: Parquet shards and a FAISS file, read by path, with no script."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import IndexDataError
from ragweave.retrieval import data_files as sources
from ragweave.retrieval.faiss_files import check_faiss, read_faiss
from ragweave.retrieval.parquet import ParquetRows
from ragweave.retrieval.passage_rows import PassageRows, SavedRows, texts_of_rows
from ragweave.retrieval.vectors import check_queries, vectors_of_rows

# A small data set, such as wiki_dpr's stand-in of 10,000 passages, needs no FAISS file: up to this many
# passages, an exact index is built in memory.
MOST_BUILT_IN_MEMORY = 200_000
_BUILT_AT_ONCE = 8192


class CanonicalIndex:
    """``index_name="exact"`` and ``"compressed"``: wiki_dpr, or a data set with the same columns.

    Opening reads the footers of Parquet files; `init_index` maps the FAISS file; a search reads the row groups
    of its hits, and of them the columns that it returns.

    Args:
        vector_size: D.
        dataset: Folder of a data set (a snapshot of a hub repository, a folder of Parquet files, or one that
            ``save_to_disk`` wrote), or else its name on the hub.
        split: Split of the data set.
        index_name: Which of wiki_dpr's FAISS files; of another data set's, the one with this kind in its name.
        index_path: FAISS file to use instead: a path, or a path inside the data set's folder or repository.
        use_dummy_dataset: Use wiki_dpr's small stand-in.
        revision: Revision on the hub.

    Raises:
        IndexDataError: Files are missing or damaged.
    """

    def __init__(
        self,
        vector_size: int,
        *,
        dataset: str = "wiki_dpr",
        split: str = "train",
        index_name: str = "compressed",
        index_path: str | None = None,
        use_dummy_dataset: bool = False,
        revision: str | None = None,
    ) -> None:
        self.vector_size = vector_size
        source = sources.find(
            dataset,
            index_name=index_name,
            index_path=index_path,
            use_dummy_dataset=use_dummy_dataset,
            revision=revision,
        )
        self.index_path = source.faiss_file()
        self.passages: PassageRows = (
            SavedRows(source.folder, split)
            if SavedRows.is_folder_of(source.folder)
            else ParquetRows(source.shards(split))
        )
        if not len(self):
            raise IndexDataError(f"The data set in {source.folder} is empty; there is nothing to retrieve.")
        if self.index_path is None and len(self) > MOST_BUILT_IN_MEMORY:
            raise IndexDataError(
                f"There is no FAISS file for index_name={index_name!r} in {source.folder}: give index_path, or "
                "fetch the data set's index folder."
            )
        self._faiss: Any = None

    def __len__(self) -> int:
        return len(self.passages)

    @property
    def faiss_index(self) -> Any:
        """The FAISS index, or ``None`` before `init_index`."""
        return self._faiss

    def init_index(self) -> None:
        """Map the FAISS file; of a small data set without one, build an exact index.

        Raises:
            IndexDataError: The file is damaged or does not belong to the passages.
        """
        if self._faiss is not None:
            return
        index = self._built() if self.index_path is None else read_faiss(self.index_path)
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
        _, rows = self._faiss.search(np.ascontiguousarray(question_hidden_states, dtype=np.float32), n_docs)
        return rows, vectors_of_rows(rows, self.passages.vectors, self.vector_size)

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look passages up; see `Index.get_doc_dicts`. All columns but the vectors are returned."""
        return texts_of_rows(doc_ids, self.passages.texts)

    def _built(self) -> Any:
        import faiss

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
