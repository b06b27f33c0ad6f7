"""The base of the FAISS indexes: reading and checking the file, and searching it.

Notation used for tensor shapes: B questions, K passages per question, M rows, N passages, D vector size.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ragweave.errors import IndexDataError
from ragweave.retrieval.index_protocol import INDEX_COLUMN, check_queries, texts_of_rows, vectors_of_rows
from ragweave.retrieval.passage_rows import PassageRows


class FaissIndex:
    """Passages by row number, searched with FAISS; a subclass loads the FAISS index in `init_index`."""

    def __init__(self, vector_size: int, rows: PassageRows) -> None:
        self.vector_size = vector_size
        self._rows = rows
        self._faiss: Any = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def faiss_index(self) -> Any:
        """The FAISS index, or ``None`` before `init_index`."""
        return self._faiss

    def is_initialized(self) -> bool:
        """Whether the FAISS index is loaded."""
        return self._faiss is not None

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 5
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Search for the K best rows and their vectors; see `Index.get_top_docs`."""
        check_loaded(self._faiss)
        check_queries(question_hidden_states, self.vector_size)
        queries = np.ascontiguousarray(question_hidden_states, dtype=np.float32)
        _, rows = self._faiss.search(queries, n_docs)
        return rows, vectors_of_rows(rows, self._rows.vectors, self.vector_size)

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look up passages, (B, K), or single ones, (K,), with all their columns; see `Index.get_doc_dicts`."""
        if doc_ids.ndim == 1:
            return [
                {name: values[0] for name, values in doc.items()}
                for doc in self.get_doc_dicts(doc_ids[:, None])
            ]
        docs = self.get_texts(doc_ids)
        vectors = vectors_of_rows(doc_ids, self._rows.vectors, self.vector_size)
        return [{**doc, INDEX_COLUMN: each} for doc, each in zip(docs, vectors, strict=True)]

    def get_texts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look up passages without their vectors, which a search has already returned."""
        return texts_of_rows(doc_ids, self._rows.texts)


def read_faiss(path: str | Path) -> Any:
    """Read a FAISS index, memory-mapped if its kind allows it; `IndexDataError` if it is missing or damaged."""
    if not Path(path).is_file():
        raise IndexDataError(f"There is no FAISS file at {path}.")
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise IndexDataError(
            f"{path} is not a complete FAISS index: write it again, or copy it again from its source."
        ) from error


def check_faiss(index: Any, *, vector_size: int, n_passages: int) -> None:
    """Raise `IndexDataError` unless an index has the size of the passages; warn of a metric other than RAG's."""
    if index.d != vector_size:
        raise IndexDataError(
            f"The FAISS index holds vectors of dimension {index.d}; expected {vector_size}, the configuration's "
            "retrieval_vector_size."
        )
    if index.ntotal != n_passages:
        raise IndexDataError(
            f"The FAISS index holds {index.ntotal} vectors, but there are {n_passages} passages: they do not "
            "belong together."
        )
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        warnings.warn(
            "The FAISS index searches by distance, but RAG scores passages by inner products. Both agree only for "
            "vectors of one length. Build the index with metric_type=faiss.METRIC_INNER_PRODUCT.",
            stacklevel=3,
        )


def check_loaded(index: Any) -> None:
    """Refuse to search an index before `init_index`."""
    if index is None:
        raise IndexDataError("The index is not loaded yet: call init_index() first.")
