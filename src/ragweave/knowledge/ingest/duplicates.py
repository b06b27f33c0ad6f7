"""Finding exact duplicates among any number of passages, eight bytes each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ragweave.types import Passage


def hashes_of(passages: Sequence[Passage]) -> NDArray[np.uint64]:
    """Hash the titles and texts of M passages, (M,).

    Two different passages of 20 million have one hash with a probability of about one in 100,000.
    """
    digests = b"".join(
        hashlib.blake2b(f"{passage.title}\0{passage.text}".encode(), digest_size=8).digest()
        for passage in passages
    )
    return np.frombuffer(digests, dtype="<u8")


class KnownHashes(Protocol):
    """Tells which hashes are new."""

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Add M hashes.

        Returns:
            Which of them are new, (M,); of equal ones among them, the first.
        """
        ...


class SeenHashes:
    """Remembers hashes, in sorted runs of which each is more than twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.uint64]] = []

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Add M hashes.

        Returns:
            Which of them are new, (M,); of equal ones among them, the first.
        """
        distinct, first = np.unique(hashes, return_index=True)
        known = np.zeros(len(distinct), dtype=bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, distinct), len(run) - 1)
            known |= run[places] == distinct
        new = np.zeros(len(hashes), dtype=bool)
        new[first[~known]] = True
        if not known.all():
            self._runs.append(distinct[~known])
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort(kind="stable")
            self._runs.append(merged)
        return new
