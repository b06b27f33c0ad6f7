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

FLAT = "Flat"
"""FAISS' word for comparing all vectors. It needs no index file, since the vectors are stored anyway."""

AUTO_FLAT = 100_000
"""Up to how many passages ``"auto"`` compares all vectors, which takes milliseconds."""

PARAMETERS = ("efConstruction", "efSearch", "k_factor_rf", "nprobe")
"""Settings that may be given: of the search and, for efConstruction, of building."""

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
    return _recall(index, vectors, np.sort(sample[:_RECALL_QUESTIONS]))


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


def _set_parameters(index: Any, parameters: dict[str, int]) -> None:
    space = faiss.ParameterSpace()
    for name, value in parameters.items():
        try:
            space.set_index_parameter(index, name, value)
        except RuntimeError as error:
            raise ConfigurationError(
                f"This kind of index has no parameter {name}. Leave it out, or choose another kind."
            ) from error


def _recall(index: Any, vectors: NDArray[np.float32], sample: NDArray[np.int64]) -> float:
    """The share of the nearest neighbours of some rows that an index finds, without the rows themselves."""
    questions = np.ascontiguousarray(vectors[sample])
    k = min(_RECALL_AT + 1, len(vectors))
    exact, approximate = search_all(questions, vectors, k)[1].tolist(), index.search(questions, k)[1].tolist()
    neighbours = [set(rows) - {row} for rows, row in zip(exact, sample.tolist(), strict=True)]
    hits = sum(len(expected & set(rows)) for expected, rows in zip(neighbours, approximate, strict=True))
    return hits / max(sum(map(len, neighbours)), 1)
