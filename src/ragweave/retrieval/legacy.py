"""The index of the paper's own code: FAISS with one extra dimension, and two pickles of plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import IndexDataError
from ragweave.retrieval.data_files import hub_file
from ragweave.retrieval.faiss_index import check_loaded, read_faiss
from ragweave.retrieval.index_protocol import MISSING, check_queries, vectors_of_rows
from ragweave.retrieval.unpickling import load_plain_data

HUB_NAME = "huggingface/wiki_dpr"
INDEX_FILE = "hf_bert_base.hnswSQ8_correct_phi_128.c_index.index.dpr"
META_FILE = "hf_bert_base.hnswSQ8_correct_phi_128.c_index.index_meta.dpr"
PASSAGES_FILE = "psgs_w100.tsv.pkl"


class LegacyIndex:
    """``index_name="legacy"``: three files in a local folder or a repository on the hub.

    Nothing in the pickles is executed; see `load_plain_data`. An extra dimension of the vectors makes an index of
    Euclidean distances search by inner product; it is zero in questions, and the returned vectors do not have it.
    The returned row numbers are the passages' ids.

    Args:
        vector_size: D, without the extra dimension.
        index_path: Folder, or else name of a repository on the hub.
        passages_path: File of the passages, or its folder, if that is a different one.

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
            raise IndexDataError(f"{path} does not hold a dictionary from passage ids to (text, title).")
        self._faiss: Any = None
        self._ids: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.passages)

    @property
    def faiss_index(self) -> Any:
        """The FAISS index, or ``None`` before `init_index`."""
        return self._faiss

    def init_index(self) -> None:
        """Map the index and read the ids of its rows; `IndexDataError` if they do not belong together."""
        if self._faiss is not None:
            return
        index = read_faiss(_file(self.location, INDEX_FILE))
        ids = _passage_ids(_file(self.location, META_FILE))
        if (index.ntotal, index.d) != (len(ids), self.vector_size + 1):
            raise IndexDataError(
                f"{INDEX_FILE} holds {index.ntotal} vectors of dimension {index.d}, {META_FILE} {len(ids)} ids; "
                f"expected as many ids as vectors, of dimension {self.vector_size + 1} "
                "(retrieval_vector_size plus one)."
            )
        self._ids, self._faiss = ids, index

    def is_initialized(self) -> bool:
        """Whether the index is loaded."""
        return self._faiss is not None

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 5
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Search for the K best passages' ids and their vectors; see `Index.get_top_docs`."""
        check_loaded(self._faiss)
        check_queries(question_hidden_states, self.vector_size)
        questions = np.pad(np.asarray(question_hidden_states, dtype=np.float32), ((0, 0), (0, 1)))
        _, rows = self._faiss.search(questions, n_docs)
        vectors = vectors_of_rows(
            rows, lambda distinct: self._faiss.reconstruct_batch(distinct)[:, :-1], self.vector_size
        )
        return np.where(rows == MISSING, MISSING, self._ids[rows]), vectors

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look up passages by their ids; see `Index.get_doc_dicts`."""
        questions = [[self._passage(int(identifier)) for identifier in ids] for ids in doc_ids]
        return [
            {"title": [title for _, title in passages], "text": [text for text, _ in passages]}
            for passages in questions
        ]

    def _passage(self, identifier: int) -> tuple[str, str]:
        if identifier == MISSING:
            return "", ""
        match self.passages.get(str(identifier)):
            case str(text), str(title):
                return text, title
            case None:
                raise IndexDataError(f"Passage {identifier} is in the index but not among the passages.")
            case other:
                raise IndexDataError(f"Passage {identifier} is {str(other)[:80]}; expected (text, title).")


def _passage_ids(path: Path) -> NDArray[np.int64]:
    ids = load_plain_data(path)
    try:
        if not isinstance(ids, list):
            raise TypeError(type(ids).__name__)
        return np.array([int(identifier) for identifier in ids], dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise IndexDataError(f"{path} does not hold a list of passage ids (whole numbers).") from error


def _file(location: str, name: str) -> Path:
    if not Path(location).is_dir():
        return hub_file(location, name)
    path = Path(location) / name
    if not path.is_file():
        raise IndexDataError(f"{location} lacks the file {name} of a legacy index.")
    return path
