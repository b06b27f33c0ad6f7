"""FAISS indexes over the vectors of a segment: their kinds, how they are built, and how much they find.

Notation used for tensor shapes: N passages, D vector size, B questions, K passages per question.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge import store

_FAISS: Any = faiss  # whose types lack what Python's wrappers of some classes take

FLAT = "Flat"
"""FAISS' word for comparing all vectors. It needs no index file, since the vectors are stored anyway."""

AUTO_FLAT = 100_000
"""Up to how many passages ``"auto"`` compares all vectors, which takes milliseconds."""

PARAMETERS = ("efConstruction", "efSearch", "k_factor_rf", "nprobe")
"""Settings that may be given: of the search and, for efConstruction, of building."""

# Live rows up to this number, or this share of all, are compared one by one.
_EXACT_ROWS, _EXACT_SHARE = 4096, 0.2
_MOST_NEAR_DELETED = 8192
_SPARE_ROWS = 64
_MAX_TRAINING = 200_000
_TRAINING_PER_LIST = 39  # FAISS warns below this
_RECALL_QUESTIONS, _RECALL_AT = 100, 10


def factory_of(kind: str, count: int, dimension: int) -> str:
    """The string for FAISS' index factory.

    Args:
        kind: ``"auto"`` (flat up to 100,000 passages, HNSW above), ``"flat"``, ``"hnsw"``, ``"ivfpq"``, ``"sq8"``, or
            a factory string such as ``"IVF1024,SQ8"``.
        count: N.
        dimension: D.

    Returns:
        The factory string; flat for ``"ivfpq"`` if there are too few vectors to train it.
    """
    if kind == "auto":
        kind = "flat" if count <= AUTO_FLAT else "hnsw"
    lists = min(int(4 * math.sqrt(count)), count // _TRAINING_PER_LIST)
    if kind == "flat" or (
        kind == "ivfpq" and min(count, lists * _TRAINING_PER_LIST) < 256 * _TRAINING_PER_LIST
    ):
        return FLAT
    parts = next((parts for parts in (64, 48, 32, 24, 16, 12, 8, 4, 2) if dimension % parts == 0), 1)
    names = {"hnsw": "HNSW32", "sq8": "SQ8", "ivfpq": f"OPQ{parts},IVF{lists},PQ{parts}"}
    return names.get(kind, kind)


def check_kind(kind: str, parameters: dict[str, int], dimension: int) -> None:
    """Raise `ConfigurationError`, before any work, if FAISS lacks a kind of index or its settings."""
    if unknown := sorted(set(parameters) - set(PARAMETERS)):
        raise ConfigurationError(
            f"There is no index parameter {', '.join(unknown)}. Choose from {', '.join(PARAMETERS)}."
        )
    try:
        faiss.index_factory(dimension, factory_of(kind, 10**6, dimension), faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ConfigurationError(
            f"FAISS has no index {kind!r} for vectors of dimension {dimension}. Choose auto, flat, hnsw, ivfpq or "
            "sq8, or a string of its index factory such as IVF1024,SQ8."
        ) from error


def write_index(path: Path, vectors: NDArray[np.float32], factory: str, parameters: dict[str, int]) -> float:
    """Build an index a shard at a time, and measure its recall.

    Args:
        path: The file to create; a flat index has none.
        vectors: All vectors, (N, D).
        factory: The factory string.
        parameters: Settings.

    Returns:
        The share of the ten nearest neighbours of a hundred passages that the index finds.

    Raises:
        ConfigurationError: There are too few vectors to train the index.
    """
    if factory == FLAT:
        return 1.0
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    _set_parameters(index, parameters)
    sample = np.random.default_rng(0).permutation(len(vectors))
    if not index.is_trained:
        try:
            index.train(np.ascontiguousarray(vectors[np.sort(sample[:_MAX_TRAINING])]))
        except RuntimeError as error:
            raise ConfigurationError(
                f"FAISS cannot train the index {factory} with {len(vectors)} passages. Choose flat or hnsw, or fewer "
                "lists."
            ) from error
    for start in range(0, len(vectors), store.SHARD):
        index.add(np.ascontiguousarray(vectors[start : start + store.SHARD]))
    with store.durable(path) as file:
        # FAISS' own file writer reports no error if the last bytes do not fit on the disk.
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write, 1 << 20))  # type: ignore[attr-defined]
    return _recall(index, vectors, np.sort(sample[:_RECALL_QUESTIONS]), parameters)


def read_index(path: Path, parameters: dict[str, int]) -> Any:
    """Map a FAISS index into memory; raises `KnowledgeBaseError` if the file is damaged."""
    # Before FAISS 1.11 there is only the other flag, which maps nothing but inverted lists.
    flag = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP)
    try:
        index = faiss.read_index(str(path), flag)
    except RuntimeError as error:
        raise KnowledgeBaseError(store.damaged(path)) from error
    _set_parameters(index, parameters)
    return index


def search_all(
    questions: NDArray[np.float32], vectors: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compare questions with all vectors: the K largest inner products and their rows, both (B, K)."""
    if not len(questions):
        return np.zeros((0, k), dtype=np.float32), np.zeros((0, k), dtype=np.int64)
    scores, rows = faiss.knn(questions, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, rows


class LiveIndex:
    """A FAISS index of which some rows are deleted.

    Deleted rows are excluded while the index searches, and what it finds by compressed vectors is compared again by
    whole ones. All live rows are compared instead where they are few, which the graph of an HNSW index would hardly
    reach, and for questions that the index finds too few rows for.

    Args:
        index: A FAISS index.
        vectors: All vectors, (N, D).
        is_live: Which rows are live, (N,).
        parameters: Settings that were given. By default an HNSW index keeps 64 candidates or twice K, an IVF index
            visits a sixteenth of its lists, 8, or those of eight times K rows, and a refining one compares four times
            K. Up to 8,192 deleted rows widen the search by as many.
    """

    def __init__(
        self,
        index: Any,
        vectors: NDArray[np.float32],
        is_live: NDArray[np.bool_],
        parameters: dict[str, int],
    ) -> None:
        self._index, self._vectors, self._parameters = index, vectors, parameters
        self._is_live, self._live = is_live, int(is_live.sum())
        deleted = len(is_live) - self._live
        self._selector = _FAISS.IDSelectorBitmap(np.packbits(is_live, bitorder="little")) if deleted else None
        self._deleted = min(deleted, _MOST_NEAR_DELETED)  # all of them may lie around one question
        # Whether the scores of the index are inner products of whole vectors.
        self._is_exact = isinstance(faiss.downcast_index(index), faiss.IndexHNSWFlat | faiss.IndexIVFFlat)

    def search(self, questions: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Search for live rows.

        Args:
            questions: Question vectors, (B, D).
            k: K, at most the number of live rows.

        Returns:
            Scores and rows, (B, K), best first.
        """
        if self._live <= max(_EXACT_ROWS, _EXACT_SHARE * len(self._is_live)):
            return self._compare_live(questions, k)
        # Compressed vectors give rough scores: more rows than needed are found by them, and compared exactly.
        candidates = min(self._live, k if self._is_exact else max(4 * k, k + _SPARE_ROWS))
        options = _search_parameters(self._index, candidates, self._deleted, self._parameters, self._selector)
        scores, rows = self._index.search(questions, candidates, params=options)
        if candidates > k:
            scores = np.einsum("bd,bkd->bk", questions, self._vectors[rows])
            scores[rows < 0] = -np.inf
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        lacking = (rows < 0).any(1)
        if lacking.any():
            scores[lacking], rows[lacking] = self._compare_live(questions[lacking], k)
        return scores, rows

    def _compare_live(
        self, questions: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        rows = np.flatnonzero(self._is_live)
        scores, positions = search_all(questions, np.ascontiguousarray(self._vectors[rows]), k)
        return scores, rows[positions]


def _search_parameters(index: Any, k: int, deleted: int, parameters: dict[str, int], selector: Any) -> Any:
    """FAISS' parameters of one search, for an index and those inside it."""
    index = faiss.downcast_index(index)
    options = {} if selector is None else {"sel": selector}
    if isinstance(index, faiss.IndexPreTransform):
        inner = _search_parameters(index.index, k, deleted, parameters, selector)
        return _FAISS.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        factor = parameters.get("k_factor_rf", 4)
        inner = _search_parameters(index.base_index, factor * k, deleted, parameters, selector)
        return _FAISS.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
    if isinstance(index, faiss.IndexHNSW):
        candidates = max(parameters.get("efSearch", 64), 2 * k)
        return _FAISS.SearchParametersHNSW(efSearch=candidates + deleted, **options)
    if isinstance(index, faiss.IndexIVF):
        per_row = index.nlist / max(index.ntotal, 1)
        lists = parameters.get("nprobe", max(8, index.nlist // 16, math.ceil(8 * k * per_row)))
        lists += math.ceil(deleted * per_row)
        return _FAISS.SearchParametersIVF(nprobe=min(lists, index.nlist), **options)
    return _FAISS.SearchParameters(**options)


def _set_parameters(index: Any, parameters: dict[str, int]) -> None:
    space = faiss.ParameterSpace()
    for name, value in parameters.items():
        try:
            space.set_index_parameter(index, name, value)
        except RuntimeError as error:
            raise ConfigurationError(
                f"This kind of index has no parameter {name}. Leave it out, or choose another kind."
            ) from error


def _recall(
    index: Any, vectors: NDArray[np.float32], sample: NDArray[np.int64], parameters: dict[str, int]
) -> float:
    """The share of the nearest neighbours of some rows that an index finds, without the rows themselves."""
    questions = np.ascontiguousarray(vectors[sample])
    k = min(_RECALL_AT + 1, len(vectors))
    exact = search_all(questions, vectors, k)[1].tolist()
    live = LiveIndex(index, vectors, np.ones(len(vectors), dtype=bool), parameters)
    approximate = live.search(questions, k)[1].tolist()
    neighbours = [set(rows) - {row} for rows, row in zip(exact, sample.tolist(), strict=True)]
    hits = sum(len(expected & set(rows)) for expected, rows in zip(neighbours, approximate, strict=True))
    return hits / max(sum(map(len, neighbours)), 1)
