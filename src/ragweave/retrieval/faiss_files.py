"""FAISS files on disk."""

from __future__ import annotations

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
