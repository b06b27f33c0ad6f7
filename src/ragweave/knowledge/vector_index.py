"""FAISS indexes over the vectors of a segment: which kind, building it a shard at a time, and how much it finds.

Notation used for tensor shapes: N passages, D vector size, B questions, K passages per question.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge import store

FLAT = "Flat"
"""FAISS' words for comparing with every vector, for which no index is kept: the vectors are there."""

AUTO_FLAT = 100_000
"""Up to how many passages ``"auto"`` compares with every vector, which takes milliseconds for that many."""

PARAMETERS = frozenset({"nprobe", "efSearch", "efConstruction", "k_factor_rf"})
"""Settings of the search (and, for efConstruction, of building) that may be given."""

_TRAINED_AT_MOST = 200_000
_PER_LIST = 39  # FAISS warns of fewer training vectors for each list
_ASKED, _NEIGHBOURS = 100, 10


def factory_of(kind: str, count: int, dimension: int) -> str:
    """FAISS' words for an index over so many vectors.

    Args:
        kind: ``"auto"`` (flat up to 100,000 passages, HNSW above), ``"flat"``, ``"hnsw"``, ``"ivfpq"``, ``"sq8"``, or
            words of FAISS' own index factory, such as ``"IVF1024,SQ8"``.
        count: N.
        dimension: D.

    Returns:
        Words for ``faiss.index_factory``; flat in place of ``"ivfpq"`` where the vectors are too few to train it.
    """
    if kind == "auto":
        kind = "flat" if count <= AUTO_FLAT else "hnsw"
    lists = min(int(4 * math.sqrt(count)), count // _PER_LIST)
    if kind == "flat" or (kind == "ivfpq" and min(count, lists * _PER_LIST) < 256 * _PER_LIST):
        return FLAT
    parts = next((parts for parts in (64, 48, 32, 24, 16, 12, 8, 4, 2) if dimension % parts == 0), 1)
    return {
        "hnsw": "HNSW32",
        "sq8": "SQ8",
        "ivfpq": f"OPQ{parts},IVF{lists},PQ{parts}",
    }.get(kind, kind)


def check_kind(kind: str, parameters: dict[str, int], dimension: int) -> None:
    """Check that FAISS knows a kind of index and its settings, before any work is done.

    Raises:
        ConfigurationError: It does not.
    """
    import faiss

    if unknown := sorted(set(parameters) - PARAMETERS):
        raise ConfigurationError(
            f"There is no index parameter {', '.join(unknown)}; choose among {', '.join(sorted(PARAMETERS))}."
        )
    try:
        faiss.index_factory(dimension, factory_of(kind, 10**6, dimension), faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ConfigurationError(
            f"FAISS knows no index {kind!r} for vectors of dimension {dimension}: choose auto, flat, hnsw, ivfpq or "
            "sq8, or words of its index factory such as IVF1024,SQ8."
        ) from error


def write_index(path: Path, vectors: NDArray[np.float32], factory: str, parameters: dict[str, int]) -> float:
    """Build an index, a shard at a time, and measure what it finds.

    Args:
        path: The file to make; none is made for a flat one.
        vectors: All vectors, shape (N, D), mapped or in memory.
        factory: FAISS' words.
        parameters: Settings.

    Returns:
        The recall: share of the ten nearest vectors of a hundred others that are found.

    Raises:
        ConfigurationError: The index cannot be trained with so few vectors.
    """
    import faiss

    if factory == FLAT:
        return 1.0
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    _set(index, parameters)
    chosen = np.random.default_rng(0).permutation(len(vectors))
    if not index.is_trained:
        try:
            index.train(np.ascontiguousarray(vectors[np.sort(chosen[:_TRAINED_AT_MOST])]))
        except RuntimeError as error:
            raise ConfigurationError(
                f"FAISS cannot train the index {factory} with {len(vectors)} passages: choose flat or hnsw, or fewer "
                "lists."
            ) from error
    for start in range(0, len(vectors), store.SHARD):
        index.add(np.ascontiguousarray(vectors[start : start + store.SHARD]))
    with store.durable(path) as file:
        # FAISS' own file writer says nothing when the last bytes do not fit on the disk.
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write, 1 << 20))  # type: ignore[attr-defined]
    return _recall(index, vectors, np.sort(chosen[:_ASKED]))


def read_index(path: Path, parameters: dict[str, int]) -> Any:
    """Read a FAISS index, mapped into memory where this FAISS can.

    Raises:
        KnowledgeBaseError: The file is damaged.
    """
    import faiss

    # From FAISS 1.11 on; the older flag maps inverted lists only.
    flag = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP)
    try:
        index = faiss.read_index(str(path), flag)
    except RuntimeError as error:
        raise KnowledgeBaseError(store.damaged(path)) from error
    _set(index, parameters)
    return index


def search_all(
    questions: NDArray[np.float32], vectors: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compare questions with every vector: the K largest inner products and their rows, both (B, K)."""
    import faiss

    if not len(questions):
        return np.zeros((0, k), dtype=np.float32), np.zeros((0, k), dtype=np.int64)
    scores, rows = faiss.knn(questions, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, rows


def _set(index: Any, parameters: dict[str, int]) -> None:
    """Set what of the parameters an index of this kind has."""
    import faiss

    space = faiss.ParameterSpace()
    for name, value in parameters.items():
        try:
            space.set_index_parameter(index, name, value)
        except RuntimeError as error:
            raise ConfigurationError(
                f"This kind of index has no parameter {name}: leave it out, or choose another kind."
            ) from error


def _recall(index: Any, vectors: NDArray[np.float32], asked: NDArray[np.int64]) -> float:
    """Share of the nearest neighbours of some rows that an index finds, the rows themselves left out."""
    questions = np.ascontiguousarray(vectors[asked])
    k = min(_NEIGHBOURS + 1, len(vectors))
    exact, found = search_all(questions, vectors, k)[1].tolist(), index.search(questions, k)[1].tolist()
    neighbours = [set(rows) - {own} for rows, own in zip(exact, asked.tolist(), strict=True)]
    hits = sum(len(own & set(rows)) for own, rows in zip(neighbours, found, strict=True))
    return hits / max(sum(map(len, neighbours)), 1)
