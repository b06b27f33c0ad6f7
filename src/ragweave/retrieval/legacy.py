"""The index that the paper's own code wrote: FAISS with one extra dimension, two pickles of plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import IndexDataError
from ragweave.retrieval.data_files import hub_file
from ragweave.retrieval.faiss_files import read_faiss
from ragweave.retrieval.index_protocol import MISSING
from ragweave.retrieval.unpickling import load_plain_data
from ragweave.retrieval.vectors import check_queries, vectors_of_rows

HUB_NAME = "huggingface/wiki_dpr"
INDEX_FILE = "hf_bert_base.hnswSQ8_correct_phi_128.c_index.index.dpr"
META_FILE = "hf_bert_base.hnswSQ8_correct_phi_128.c_index.index_meta.dpr"
PASSAGES_FILE = "psgs_w100.tsv.pkl"


class LegacyIndex:
    """``index_name="legacy"``: three files in a local folder or a repository on the hub.

    Nothing in the pickles can be executed; see `load_plain_data`. Vectors have an extra dimension, with which
    an index of Euclidean distances finds inner products; it is zero in questions and left out of what is
    returned. The row numbers that are returned are the passages' own.

    Args:
        vector_size: D, without the extra dimension.
        index_path: Folder, or else name of a repository on the hub.
        passages_path: File of the passages, or its folder, where that is another.

    Raises:
        IndexDataError: A file is missing, or holds anything but plain data.
    """

    def __init__(
        self, vector_size: int, index_path: str | None = None, passages_path: str | None = None
    ) -> None:
        self.vector_size = vector_size
        self.location = index_path or HUB_NAME
        if passages_path is not None and not Path(passages_path).is_dir():
            path = Path(passages_path)
        else:
            path = _file(passages_path or self.location, PASSAGES_FILE)
        self.passages = load_plain_data(path)
        if not isinstance(self.passages, dict) or not self.passages:
            raise IndexDataError(f"{path} holds no dictionary from passage ids to (text, title).")
        self._faiss: Any = None
        self._ids: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.passages)

    @property
    def faiss_index(self) -> Any:
        """The FAISS index, or ``None`` before `init_index`."""
        return self._faiss

    def init_index(self) -> None:
        """Map the index, and read the ids of its rows.

        Raises:
            IndexDataError: They are missing or damaged, or do not belong together.
        """
        if self._faiss is not None:
            return
        index = read_faiss(_file(self.location, INDEX_FILE))
        ids = _passage_ids(_file(self.location, META_FILE))
        if (index.ntotal, index.d) != (len(ids), self.vector_size + 1):
            raise IndexDataError(
                f"{INDEX_FILE} holds {index.ntotal} vectors of dimension {index.d}, {META_FILE} {len(ids)} ids; "
                f"expected as many ids as vectors, of dimension {self.vector_size + 1}: retrieval_vector_size "
                "and one."
            )
        self._ids, self._faiss = ids, index

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
        questions = np.pad(np.asarray(question_hidden_states, dtype=np.float32), ((0, 0), (0, 1)))
        _, rows = self._faiss.search(questions, n_docs)
        vectors = vectors_of_rows(
            rows, lambda found: self._faiss.reconstruct_batch(found)[:, :-1], self.vector_size
        )
        return np.where(rows == MISSING, MISSING, self._ids[rows]), vectors

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look passages up by their ids; see `Index.get_doc_dicts`."""
        found = [[self._passage(int(identifier)) for identifier in own] for own in doc_ids]
        return [{"title": [title for _, title in own], "text": [text for text, _ in own]} for own in found]

    def _passage(self, identifier: int) -> tuple[str, str]:
        if identifier == MISSING:
            return "", ""
        match self.passages.get(str(identifier)):
            case str(text), str(title):
                return text, title
            case None:
                raise IndexDataError(f"Passage {identifier} is in the index, but not among the passages.")
            case other:
                raise IndexDataError(f"Passage {identifier} is {str(other)[:80]}; expected (text, title).")


def _passage_ids(path: Path) -> NDArray[np.int64]:
    ids = load_plain_data(path)
    try:
        if not isinstance(ids, list):
            raise TypeError(type(ids).__name__)
        return np.array([int(identifier) for identifier in ids], dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise IndexDataError(f"{path} holds no list of passage ids, which are whole numbers.") from error


def _file(location: str, name: str) -> Path:
    if not Path(location).is_dir():
        return hub_file(location, name)
    path = Path(location) / name
    if not path.is_file():
        raise IndexDataError(f"{location} lacks the file {name} of a legacy index.")
    return path
