"""wiki_dpr and data sets laid out like it: Parquet shards and FAISS files, read by path, with no script.

The layout is that of ``facebook/wiki_dpr`` on the hub:

    data/psgs_w100/{nq,multiset,dummy.nq,...}/train-00000-of-00157.parquet      id, text, title, embeddings
    index/psgs_w100.{nq,multiset}.HNSW128_SQ8-IP-train.faiss                    "exact"
    index/psgs_w100.{nq,multiset}.IVF4096_HNSW128_PQ128-IP-train.faiss          "compressed"

A data set whose files lie elsewhere works too: all its Parquet files of the split are read in the order of
their names, and the index comes from ``index_path`` or from the one file in it that bears the right name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragweave.errors import IndexDataError
from ragweave.retrieval.faiss_files import read_faiss
from ragweave.retrieval.parquet import ParquetRows
from ragweave.retrieval.protocol import MISSING
from ragweave.retrieval.vectors import check_queries, vectors_of_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

HUB_NAMES = {"wiki_dpr": "facebook/wiki_dpr"}
PASSAGES = "data/psgs_w100"
EMBEDDINGS = "nq"
FAISS_NAMES = {"exact": "HNSW128_SQ8-IP", "compressed": "IVF4096_HNSW128_PQ128-IP"}
VECTOR_COLUMN = "embeddings"
# A dummy data set may come without an index: up to this many passages, an exact one is built in memory.
MOST_BUILT_IN_MEMORY = 200_000


class CanonicalIndex:
    """Passages of wiki_dpr or a data set like it.

    Opening reads footers of shards and maps the index; a search touches the row groups of its hits.

    Args:
        vector_size: D.
        dataset: Name on the hub, or folder of a snapshot of it.
        split: Split of the data set.
        index_name: "exact" or "compressed".
        index_path: FAISS file to use instead of the data set's own.
        use_dummy_dataset: Use the small stand-in.
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
        self.index_name = index_name
        self.name = f"dummy.{EMBEDDINGS}" if use_dummy_dataset else EMBEDDINGS
        self.folder = _snapshot(dataset, self.name, index_name, revision, with_index=index_path is None)
        self.index_path = Path(index_path) if index_path is not None else self._own_index()
        self.passages = ParquetRows(self._shards(split))
        missing = [c for c in ("title", "text", VECTOR_COLUMN) if c not in self.passages.column_names]
        if missing:
            raise IndexDataError(
                f"The passages in {self.folder} lack the column(s) {', '.join(missing)}; they have "
                f"{', '.join(self.passages.column_names)}."
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
            IndexDataError: The file is damaged or does not belong to the passages, or there is none and the
                passages are too many to search without.
        """
        if self._faiss is not None:
            return
        index = read_faiss(self.index_path) if self.index_path is not None else self._built()
        if index.d != self.vector_size or index.ntotal != len(self.passages):
            raise IndexDataError(
                f"The FAISS index holds {index.ntotal} vectors of dimension {index.d}; expected "
                f"{len(self.passages)} of dimension {self.vector_size}."
            )
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
        return rows, vectors_of_rows(rows, self._vectors, self.vector_size)

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look passages up; see `Index.get_doc_dicts`. All columns but the vectors are returned."""
        columns = [name for name in self.passages.column_names if name != VECTOR_COLUMN]
        distinct, inverse = np.unique(doc_ids, return_inverse=True)  # a missing one comes first
        inverse = inverse.reshape(doc_ids.shape)
        found = self.passages.take(distinct[distinct != MISSING], columns)
        values = {name: [""] * int((distinct == MISSING).any()) + found[name] for name in columns}
        return [{name: [values[name][place] for place in places] for name in columns} for places in inverse]

    def _vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(self.passages.take(rows, [VECTOR_COLUMN])[VECTOR_COLUMN], dtype=np.float32)

    def _built(self) -> Any:
        import faiss

        if len(self.passages) > MOST_BUILT_IN_MEMORY:
            raise IndexDataError(
                f"There is no FAISS file for index_name={self.index_name!r} in {self.folder}: give "
                "index_path, or fetch the data set's index folder."
            )
        index = faiss.IndexFlatIP(self.vector_size)
        vectors = self.passages.column(VECTOR_COLUMN)
        check_queries(vectors, self.vector_size)
        index.add(vectors)
        return index

    def _shards(self, split: str) -> list[Path]:
        own = sorted((self.folder / PASSAGES / self.name).glob(f"{split}-*.parquet"))
        if own:
            return own
        if (self.folder / PASSAGES).is_dir():
            raise IndexDataError(
                f"There are no files {split}-*.parquet in {self.folder / PASSAGES / self.name}: fetch them, "
                "or choose another split or use_dummy_dataset."
            )
        everything = sorted(self.folder.rglob("*.parquet"))
        of_split = [path for path in everything if path.name.startswith(split)]
        return of_split or everything

    def _own_index(self) -> Path | None:
        wanted = FAISS_NAMES[self.index_name]
        named = self.folder / "index" / f"psgs_w100.{self.name}.{wanted}-train.faiss"
        if named.is_file():
            return named
        if (self.folder / PASSAGES).is_dir():
            return None
        found = sorted(path for path in self.folder.rglob("*.faiss") if wanted in path.name) or sorted(
            self.folder.rglob("*.faiss")
        )
        if len(found) > 1:
            raise IndexDataError(
                f"There are several FAISS files in {self.folder}; name one with index_path: "
                f"{', '.join(path.name for path in found)}."
            )
        return found[0] if found else None


def _snapshot(dataset: str, name: str, index_name: str, revision: str | None, *, with_index: bool) -> Path:
    """The folder of a data set: one that is there, or a snapshot of what is needed from the hub."""
    if Path(dataset).is_dir():
        return Path(dataset)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository = HUB_NAMES.get(dataset, dataset)
    wanted = ["*.parquet", "*.faiss"]
    if dataset in HUB_NAMES:
        wanted = [f"{PASSAGES}/{name}/*.parquet"]
        if with_index:
            wanted.append(f"index/psgs_w100.{name}.{FAISS_NAMES[index_name]}-train.faiss")
    try:
        return Path(
            snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=wanted)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise IndexDataError(
            f"The data set '{dataset}' is neither a folder nor to be had from the hub: check the name and "
            f"the connection, or give the folder of a snapshot as dataset= ({str(error).splitlines()[0]})."
        ) from error
