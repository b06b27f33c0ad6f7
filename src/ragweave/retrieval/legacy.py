"""The index that the paper's own code wrote: FAISS with one extra dimension, two pickles of plain data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragweave.errors import IndexDataError
from ragweave.retrieval.faiss_files import read_faiss
from ragweave.retrieval.protocol import MISSING
from ragweave.retrieval.unpickling import load_plain_data
from ragweave.retrieval.vectors import check_queries, vectors_of_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

HUB_NAME = "huggingface/wiki_dpr"
INDEX_FILE = "hf_bert_base.hnswSQ8_correct_phi_128.c_index.index.dpr"
META_FILE = "hf_bert_base.hnswSQ8_correct_phi_128.c_index.index_meta.dpr"
PASSAGES_FILE = "psgs_w100.tsv.pkl"


class LegacyIndex:
    """``index_name="legacy"``: three files in a local folder or a repository on the hub.

    The pickles are read by an unpickler that knows containers, strings and numbers only; nothing in them can
    be executed. Vectors have an extra dimension, which HNSW over Euclidean distances needs to find inner
    products; it is zero in queries and left out of what is returned.

    Args:
        vector_size: D, without the extra dimension.
        index_path: Folder, or name of a data set on the hub.
        passages_path: File of the passages, where it lies elsewhere.

    Raises:
        IndexDataError: A file is missing, or holds anything but plain data.
    """

    def __init__(
        self, vector_size: int, index_path: str | None = None, passages_path: str | None = None
    ) -> None:
        self.vector_size = vector_size
        self.location = index_path or HUB_NAME
        path = Path(passages_path) if passages_path is not None else self._file(PASSAGES_FILE)
        self.passages = load_plain_data(path)
        if not isinstance(self.passages, dict) or not self.passages:
            raise IndexDataError(f"{path} holds no dictionary from passage ids to (text, title).")
        self._faiss: Any = None
        self._ids: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.passages)

    def init_index(self) -> None:
        """Read the index and the ids of its rows.

        Raises:
            IndexDataError: They are missing or damaged, or do not belong together.
        """
        if self._faiss is not None:
            return
        index = read_faiss(self._file(INDEX_FILE))
        ids = load_plain_data(self._file(META_FILE))
        if len(ids) != index.ntotal or index.d != self.vector_size + 1:
            raise IndexDataError(
                f"{INDEX_FILE} holds {index.ntotal} vectors of dimension {index.d}, {META_FILE} {len(ids)} "
                f"ids; expected as many ids as vectors, of dimension {self.vector_size + 1}."
            )
        self._ids = np.array([int(identifier) for identifier in ids], dtype=np.int64)
        self._faiss = index

    def is_initialized(self) -> bool:
        """Whether the index has been read."""
        return self._faiss is not None

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 5
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the K best passages' ids and their vectors; see `Index.get_top_docs`."""
        if self._faiss is None or self._ids is None:
            raise IndexDataError("The index is not loaded yet: call init_index() first.")
        check_queries(question_hidden_states, self.vector_size)
        queries = np.pad(np.asarray(question_hidden_states, dtype=np.float32), ((0, 0), (0, 1)))
        _, rows = self._faiss.search(queries, n_docs)
        vectors = vectors_of_rows(rows, self._vectors, self.vector_size)
        return np.where(rows == MISSING, MISSING, self._ids[rows]), vectors

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look passages up by their ids; see `Index.get_doc_dicts`."""
        found = [[self._passage(int(identifier)) for identifier in own] for own in doc_ids]
        return [{"title": [title for _, title in own], "text": [text for text, _ in own]} for own in found]

    def _passage(self, identifier: int) -> tuple[str, str]:
        if identifier == MISSING:
            return "", ""
        try:
            text, title = self.passages[str(identifier)]
        except (KeyError, ValueError) as error:
            raise IndexDataError(
                f"Passage {identifier} is in the index, but not among the passages."
            ) from error
        return text, title

    def _vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.stack([self._faiss.reconstruct(int(row))[:-1] for row in rows])

    def _file(self, name: str) -> Path:
        if Path(self.location).is_dir():
            path = Path(self.location) / name
            if not path.is_file():
                raise IndexDataError(f"{self.location} lacks the file {name} of a legacy index.")
            return path
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.location, name, repo_type="dataset"))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise IndexDataError(
                f"{name} is to be had neither from a folder {self.location} nor from the hub: check "
                f"index_path and the connection ({str(error).splitlines()[0]})."
            ) from error
