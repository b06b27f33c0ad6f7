"""The base of the storages in databases.

Notation used for tensor shapes: B questions, K passages per question, M rows, D vector size.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ragweave.knowledge.layout import Location
from ragweave.knowledge.manifest import Manifest
from ragweave.types import Passage

Records = dict[int, tuple[Passage, NDArray[np.float32]]]  # passages and vectors by their rows

_CACHED = 4096


def ranked(
    results: Sequence[Iterable[tuple[float, int]]], n: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Sort the hits of B questions, scores and rows, best first, (B, K), as `Storage.search` returns them."""
    scores = np.full((len(results), n), -np.inf, dtype=np.float32)
    rows = np.full((len(results), n), -1, dtype=np.int64)
    for number, hits in enumerate(results):
        best = sorted(hits, key=lambda hit: (-hit[0], hit[1]))
        scores[number, : len(best)] = [score for score, _ in best]
        rows[number, : len(best)] = [row for _, row in best]
    return scores, rows


class CachingReader:
    """Base of the storages in databases. Threads may share it and take turns.

    It caches the passages that searches return, a few thousand, or more if one search returned more. Searches return
    texts and vectors anyway, so this saves two round trips, and another process may delete a passage before its
    lookup.
    """

    def __init__(self, location: Location, manifest: Manifest) -> None:
        self.location, self.manifest = location, manifest
        self._cache: OrderedDict[int, tuple[Passage, NDArray[np.float32]]] = OrderedDict()
        self._lock = threading.Lock()

    def passage(self, row: int) -> Passage:
        """One passage; raises `IndexError` if the row does not exist or was deleted."""
        return self._records([row])[row][0]

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of M rows, (M, D); raises `IndexError` if a row does not exist or was deleted."""
        records = self._records(rows.tolist())
        vectors = [records[row][1] for row in rows.tolist()]
        return np.array(vectors, dtype=np.float32).reshape(-1, self.manifest.dimension)

    def _load(self, rows: list[int]) -> Records:
        """Read passages and vectors; rows that do not exist are missing."""
        raise NotImplementedError

    def _records(self, rows: list[int]) -> Records:
        """Passages and vectors of rows, from the cache or the database."""
        with self._lock:
            records = {row: self._cache[row] for row in rows if row in self._cache}
        if missing := sorted(set(rows) - records.keys()):
            records |= self._remember(self._load(missing))
        if unknown := set(rows) - records.keys():
            raise IndexError(f"There is no passage {min(unknown)} in {self.location}, or it was deleted.")
        return records

    def _remember(self, records: Records) -> Records:
        with self._lock:
            for row, record in records.items():
                self._cache[row] = record
                self._cache.move_to_end(row)
            while len(self._cache) > max(_CACHED, len(records)):
                self._cache.popitem(last=False)
        return records
