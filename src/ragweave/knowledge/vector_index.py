"""FAISS indexes over the vectors of a segment: their kinds, how they are built, and their recall.

Notation used for tensor shapes: N passages, D vector size, B questions, K passages per question.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError
from ragweave.knowledge import store
from ragweave.knowledge.manifest import EXACT

_FAISS: Any = faiss  # its type stubs lack arguments of some Python wrappers

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
_WITHOUT_SELECTOR = (faiss.IndexPQ, faiss.IndexLSH)
_LINKS_AT_ONCE = 1 << 24
_MAX_TRAINING = 200_000
_TRAINING_PER_LIST = 39  # FAISS warns below this
_RECALL_QUESTIONS = 100
_BREADTHS = (1, 2, 4, 8, 16)
_BLOCK = 65_536

_LEAST_RECALL = 0.95


def factory_of(kind: str, count: int, dimension: int) -> str:
    """The string for FAISS' index factory.

    Args:
        kind: ``"auto"`` (flat up to 100,000 passages, HNSW above), ``"flat"``, ``"hnsw"``, ``"ivfpq"``, ``"sq8"``,
            ``"binary"``, or a factory string such as ``"IVF1024,SQ8"``.
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
    names = {
        "hnsw": "HNSW32",
        "sq8": "SQ8",
        "binary": f"RR{dimension},RaBitQ",  # bits are most accurate after a random rotation
        "ivfpq": f"OPQ{parts},IVF{lists},PQ{parts}",
    }
    return names.get(kind, kind)


def least_recall(kind: str) -> float:
    """The recall at 5, 50 and 100 for which the breadth of an index of a kind is chosen; 0 for no choice."""
    return _LEAST_RECALL if kind in ("auto", "binary") else 0.0


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
            f"FAISS has no index {kind!r} for vectors of dimension {dimension}. Choose auto, flat, hnsw, ivfpq, "
            "sq8 or binary, or a string of its index factory such as IVF1024,SQ8."
        ) from error


def write_index(
    path: Path, vectors: NDArray[np.float32], factory: str, parameters: dict[str, int], *, least: float = 0
) -> tuple[dict[str, float], int]:
    """Build an index a shard at a time, and measure its recall.

    Args:
        path: The file to create; a flat index has none.
        vectors: All vectors, (N, D).
        factory: The factory string.
        parameters: Settings.
        least: See `measure`.

    Returns:
        What `measure` returns.

    Raises:
        ConfigurationError: There are too few vectors to train the index.
    """
    if factory == FLAT:
        return EXACT, 1
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
    return measure(index, vectors, np.ones(len(vectors), dtype=bool), parameters, least=least)


def read_index(path: Path, parameters: dict[str, int]) -> Any:
    """Map a FAISS index into memory; raises `KnowledgeBaseError` if the file is damaged."""
    # Before FAISS 1.11, only the other flag exists, which maps only inverted lists.
    flag = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP)
    try:
        path.open("rb").close()  # a full table of descriptors is an OSError here, and a RuntimeError of FAISS
        index = faiss.read_index(str(path), flag)
    except (OSError, RuntimeError) as error:
        raise store.damaged(path, error) from error
    if not _has_sound_rows(index):
        raise store.damaged(path)
    _set_parameters(index, parameters)
    return index


def _has_sound_rows(index: Any) -> bool:
    """Whether the rows in the graph of an HNSW index and in the lists of an IVF index, used unchecked, exist."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform | faiss.IndexRefine):
        return _has_sound_rows(
            index.index if isinstance(index, faiss.IndexPreTransform) else index.base_index
        )
    if isinstance(index, faiss.IndexIVF):
        lists: Any = index.invlists
        if not index.quantizer.ntotal == index.nlist == lists.nlist or not _has_sound_rows(index.quantizer):
            return False
        sizes = enumerate(map(lists.list_size, range(lists.nlist)))
        rows = (_FAISS.rev_swig_ptr(lists.get_ids(number), size) for number, size in sizes if size)
        return all(part.min() >= 0 and part.max() < index.ntotal for part in rows)
    if not isinstance(index, faiss.IndexHNSW):
        return True
    graph: Any = index.hnsw
    size = graph.neighbors.size()
    starts = _FAISS.vector_to_array(graph.offsets).astype(np.int64)
    levels = _FAISS.vector_to_array(graph.levels)
    per_level = _FAISS.vector_to_array(graph.cum_nneighbor_per_level)
    if (
        len(starts) != index.ntotal + 1
        or len(levels) != index.ntotal
        or not -1 <= graph.entry_point < index.ntotal
    ):
        return False
    if not index.ntotal:
        return True
    if (
        levels.min() < 1
        or levels.max() >= len(per_level)
        or not 0 <= graph.max_level < levels[graph.entry_point]
    ):
        return False
    if starts[0] or starts[-1] != size or (np.diff(starts) != per_level[levels]).any():
        return False
    links = _FAISS.rev_swig_ptr(graph.neighbors.data(), size)
    return all(
        part.min() >= -1 and part.max() < index.ntotal
        for part in (links[start : start + _LINKS_AT_ONCE] for start in range(0, size, _LINKS_AT_ONCE))
    )


def search_all(
    questions: NDArray[np.float32], vectors: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compare questions with all vectors: the K largest inner products and their rows, both (B, K)."""
    if not len(questions):
        return np.zeros((0, k), dtype=np.float32), np.zeros((0, k), dtype=np.int64)
    scores, rows = faiss.knn(questions, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, rows


def search_live(
    questions: NDArray[np.float32], vectors: NDArray[np.float32], is_live: NDArray[np.bool_], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compare questions with all vectors of live rows, block by block.

    Args:
        questions: Question vectors, (B, D).
        vectors: All vectors, (N, D).
        is_live: Which rows are live, (N,).
        k: K.

    Returns:
        The largest inner products and their rows, (B, K), minus infinity and -1 where there are fewer live rows.
    """
    best = np.full((len(questions), k), -np.inf, np.float32), np.full((len(questions), k), -1, np.int64)
    for start in range(0, len(vectors), _BLOCK):
        block, live = vectors[start : start + _BLOCK], is_live[start : start + _BLOCK]
        excluded = len(live) - int(live.sum())
        if excluded == len(live):
            continue
        if excluded <= _SPARE_ROWS:  # cheaper to find too many than to copy the others
            scores, rows = search_all(questions, block, min(k + excluded, len(block)))
            scores, rows = np.where(live[rows], scores, -np.inf), np.where(live[rows], rows + start, -1)
        else:
            chosen = np.flatnonzero(live)
            scores, rows = search_all(questions, np.ascontiguousarray(block[chosen]), min(k, len(chosen)))
            rows = chosen[rows] + start
        scores, rows = np.concatenate([best[0], scores], axis=1), np.concatenate([best[1], rows], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    return best


def measure(
    index: Any,
    vectors: NDArray[np.float32],
    is_live: NDArray[np.bool_],
    parameters: dict[str, int],
    *,
    least: float = 0,
) -> tuple[dict[str, float], int]:
    """Measure the share of the nearest live neighbours of a hundred live rows that an index finds.

    Args:
        index: The FAISS index.
        vectors: All vectors, (N, D).
        is_live: Which rows are live, (N,).
        parameters: Settings of the search.
        least: The recall to reach at every depth, by a broader search.

    Returns:
        The recall at 5, 50 and 100, and the breadth of the search.
    """
    live = np.flatnonzero(is_live)
    sample = np.sort(np.random.default_rng(0).permutation(live)[:_RECALL_QUESTIONS])
    questions = np.ascontiguousarray(vectors[sample])

    def search(k: int, breadth: int, *, exact: bool = False) -> NDArray[np.int64]:
        if exact:
            return search_live(questions, vectors, is_live, k)[1]
        return LiveIndex(index, vectors, is_live, parameters, breadth).search(questions, k)[1]

    return measure_recall(sample, len(live), search, least=least)


def measure_recall(
    sample: NDArray[np.int64], count: int, search: Callable[..., NDArray[np.int64]], *, least: float
) -> tuple[dict[str, float], int]:
    """Measure the share of the nearest neighbours of sampled rows, except themselves, that searches find.

    Args:
        sample: M rows.
        count: How many live rows there are.
        search: Finds K rows for each of the sample, (M, K), with a breadth, or ``exact``.
        least: The recall to reach at every depth, by a broader search.

    Returns:
        The recall by K, and the breadth.
    """
    depths = {key: min(int(key), count - 1) for key in EXACT}
    recall, breadth = EXACT, 1
    if min(depths.values()) < 1:
        return recall, breadth
    nearest = search(max(depths.values()) + 1, 1, exact=True)
    for breadth in _BREADTHS if least else (1,):
        for key, k in depths.items():  # one search each, because a larger k searches further
            expected = _neighbours(nearest, sample, k)
            neighbours = _neighbours(search(k + 1, breadth), sample, k)
            hits = sum(len(one & other) for one, other in zip(expected, neighbours, strict=True))
            recall = {**recall, key: round(hits / (k * len(sample)), 4)}
        if min(recall.values()) >= least:
            break
    return recall, breadth


def _neighbours(rows: NDArray[np.int64], sample: NDArray[np.int64], k: int) -> list[set[int]]:
    """The first K rows that were found for each row of a sample, without that row."""
    pairs = zip(rows.tolist(), sample.tolist(), strict=True)
    return [set([row for row in ranking if row != sampled][:k]) for ranking, sampled in pairs]


class LiveIndex:
    """The vectors of a segment, some of whose rows are deleted, and their FAISS index if there is one.

    Deleted rows are excluded during the search, and hits of compressed vectors are compared again by their full
    vectors. All live rows are compared instead if they are few, since an HNSW graph would hardly reach them, and for
    questions for which the index finds too few rows.

    Args:
        index: A FAISS index; ``None`` to compare all live rows.
        vectors: All vectors, (N, D).
        is_live: Which rows are live, (N,).
        parameters: The given settings. By default an HNSW index keeps 64 candidates or twice K, an IVF index
            visits a sixteenth of its lists, 8, or those of eight times K rows, and a refining one compares four times
            K. The search is widened by the number of deleted rows, up to 8,192.
        breadth: The factor on these defaults.

    Attributes:
        is_live: Which rows are live, (N,).
    """

    def __init__(
        self,
        index: Any,
        vectors: NDArray[np.float32],
        is_live: NDArray[np.bool_],
        parameters: dict[str, int],
        breadth: int = 1,
    ) -> None:
        self.is_live, self._index, self._vectors = is_live, index, vectors
        self._parameters, self._breadth = parameters, breadth
        self._live = int(is_live.sum())
        self._is_small = index is None or self._live <= max(_EXACT_ROWS, _EXACT_SHARE * len(is_live))
        if self._is_small:
            return
        deleted = len(is_live) - self._live
        self._selector = _FAISS.IDSelectorBitmap(np.packbits(is_live, bitorder="little")) if deleted else None
        self._deleted = min(deleted, _MOST_NEAR_DELETED)  # all of them may lie around one question
        # Some kinds cannot leave rows out: then more are searched for, and the deleted ones dropped.
        self._spare = self._deleted if isinstance(_innermost(index), _WITHOUT_SELECTOR) else 0
        # Whether the scores of the index are inner products of full vectors.
        self._is_exact = isinstance(faiss.downcast_index(index), faiss.IndexHNSWFlat | faiss.IndexIVFFlat)

    def over(self, is_live: NDArray[np.bool_], breadth: int | None = None) -> LiveIndex:
        """The same vectors with other live rows, and by default the same breadth."""
        return LiveIndex(self._index, self._vectors, is_live, self._parameters, breadth or self._breadth)

    def measure(self, is_live: NDArray[np.bool_], *, least: float) -> tuple[dict[str, float], int]:
        """The recall, and the breadth for it, with other live rows; see the function `measure`."""
        if self._index is None:
            return EXACT, 1
        return measure(self._index, self._vectors, is_live, self._parameters, least=least)

    def search(self, questions: NDArray[np.float32], n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Search for live rows.

        Args:
            questions: Question vectors, (B, D).
            n: K.

        Returns:
            Scores and rows, (B, K), best first; minus infinity and -1 where there are fewer live rows.
        """
        if self._is_small:
            return search_live(questions, self._vectors, self.is_live, n)
        k = min(n, self._live)
        # Compressed vectors give rough scores: more rows than needed are retrieved with them, and compared exactly.
        candidates = k if self._is_exact else max(4 * k, k + _SPARE_ROWS) * self._breadth
        candidates = min(self._live, candidates) + self._spare
        options = _search_parameters(
            self._index, candidates, self._deleted, self._parameters, self._selector, self._breadth
        )
        scores, rows = self._index.search(questions, candidates, params=options)
        if self._spare:
            rows = np.where(self.is_live[rows], rows, -1)
        if candidates > k:
            scores = np.einsum("bd,bkd->bk", questions, self._vectors[rows])
            scores[rows < 0] = -np.inf
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        lacking = (rows < 0).any(1)
        if lacking.any():
            exact = search_live(questions[lacking], self._vectors, self.is_live, k)
            scores[lacking], rows[lacking] = exact
        missing = ((0, 0), (0, n - k))
        return np.pad(scores, missing, constant_values=-np.inf), np.pad(rows, missing, constant_values=-1)


def _search_parameters(
    index: Any, k: int, deleted: int, parameters: dict[str, int], selector: Any, breadth: int
) -> Any:
    """FAISS' parameters of one search, for an index and those inside it."""
    index = faiss.downcast_index(index)
    options = {} if selector is None else {"sel": selector}
    rest = deleted, parameters, selector, breadth
    if isinstance(index, faiss.IndexPreTransform):
        inner = _search_parameters(index.index, k, *rest)
        return _FAISS.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        factor = parameters.get("k_factor_rf", 4 * breadth)
        inner = _search_parameters(index.base_index, factor * k, *rest)
        return _FAISS.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
    if isinstance(index, faiss.IndexHNSW):
        candidates = max(parameters.get("efSearch", 64 * breadth), 2 * k * breadth)
        return _FAISS.SearchParametersHNSW(efSearch=candidates + deleted, **options)
    if isinstance(index, faiss.IndexIVF):
        per_row = index.nlist / max(index.ntotal, 1)
        wide = breadth * max(8, index.nlist // 16, math.ceil(8 * k * per_row))
        lists = parameters.get("nprobe", wide) + math.ceil(deleted * per_row)
        return _FAISS.SearchParametersIVF(nprobe=min(lists, index.nlist), **options)
    return None if isinstance(index, _WITHOUT_SELECTOR) else _FAISS.SearchParameters(**options)


def _innermost(index: Any) -> Any:
    """The index inside vector transforms and refinements."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return _innermost(index.index)
    return _innermost(index.base_index) if isinstance(index, faiss.IndexRefine) else index


def _set_parameters(index: Any, parameters: dict[str, int]) -> None:
    space = faiss.ParameterSpace()
    for name, value in parameters.items():
        try:
            space.set_index_parameter(index, name, value)
        except RuntimeError as error:
            raise ConfigurationError(
                f"This kind of index has no parameter {name}. Leave it out, or choose another kind."
            ) from error
