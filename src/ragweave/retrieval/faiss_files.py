"""FAISS files on disk."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ragweave.errors import IndexDataError


def read_faiss(path: str | Path) -> Any:
    """Read a FAISS index, memory-mapped where the installed FAISS can map its kind.

    Args:
        path: The file.

    Returns:
        The FAISS index.

    Raises:
        IndexDataError: There is no such file, or it is no whole FAISS index.
    """
    import faiss

    if not Path(path).is_file():
        raise IndexDataError(f"There is no FAISS file at {path}.")
    try:
        # The older flag maps inverted lists only and reads everything else, HNSW and flat, into memory.
        return faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP))
    except RuntimeError as error:
        raise IndexDataError(
            f"{path} is no FAISS index, or not all of one: write it again, or copy it again from its source."
        ) from error


def check_faiss(index: Any, *, vector_size: int, n_passages: int) -> None:
    """Check that a FAISS index belongs to passages; warn where it searches by another measure than RAG's.

    Args:
        index: The FAISS index.
        vector_size: D.
        n_passages: N.

    Raises:
        IndexDataError: It is of another dimension, or of another number of passages.
    """
    import faiss

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
            "The FAISS index finds the nearest passages, not those with the largest inner products, by which "
            "RAG scores them; the two are the same for vectors of one length only. Build it with "
            "metric_type=faiss.METRIC_INNER_PRODUCT.",
            stacklevel=3,
        )
