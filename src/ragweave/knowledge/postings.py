"""Postings: for every word, the rows it occurs in and how often, sorted by the hashes of the words.

They are written with bounded memory: each shard becomes a sorted run on disk, and runs are merged one range of hashes
at a time.

Notation used for tensor shapes: N rows, M words of a question, W distinct words, P postings.
"""

from __future__ import annotations

import shutil
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge import store
from ragweave.knowledge.analyzer import Analyzer, hashed
from ragweave.knowledge.layout import PostingFiles

MERGED_AT_ONCE = 1 << 22
"""About how many postings are in memory during a merge."""

_POSTING = np.dtype([("word", "<u8"), ("row", "<i4"), ("count", "<u2")])
_MAX_COUNT = 0xFFFF


class Postings:
    """The postings of a segment, memory-mapped.

    Args:
        files: The files.

    Raises:
        KnowledgeBaseError: A file is missing or damaged.
    """

    def __init__(self, files: PostingFiles) -> None:
        self.words = store.read_array(files.words, np.uint64)
        self.starts = store.read_array(files.starts, np.int64)
        self.rows = store.read_array(files.rows, np.int32)
        self.counts = store.read_array(files.counts, np.uint16)
        self.lengths = store.read_array(files.lengths, np.int32)
        consistent = len(self.starts) == len(self.words) + 1 and len(self.rows) == len(self.counts)
        if not consistent or self.starts[-1] != len(self.rows):
            raise KnowledgeBaseError(store.damaged(files.starts))

    def __len__(self) -> int:
        return len(self.lengths)

    def slices(self, words: NDArray[np.uint64]) -> list[slice]:
        """The slices of `rows` and `counts` that belong to M words; empty for words that do not occur."""
        if not len(self.words):
            return [slice(0, 0)] * len(words)
        positions = np.minimum(np.searchsorted(self.words, words), len(self.words) - 1)
        return [
            slice(int(self.starts[at]), int(self.starts[at + 1])) if self.words[at] == word else slice(0, 0)
            for at, word in zip(positions, words, strict=True)
        ]


def write_postings(
    files: PostingFiles, shards: Iterable[Sequence[str]], analyzer: Analyzer, scratch: Path
) -> None:
    """Write the postings of texts.

    Args:
        files: The files to create.
        shards: The texts of all rows, as many at a time as fit into memory.
        analyzer: Splits them into words.
        scratch: A folder for temporary files; created, and deleted.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    for path in files:
        path.unlink(missing_ok=True)  # left by an interrupted build
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    lengths: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
    runs: list[NDArray[Any]] = []
    for number, texts in enumerate(shards):
        shard_lengths, run = _run(texts, analyzer, first_row=sum(map(len, lengths)))
        lengths.append(shard_lengths)
        path = scratch / f"{number}.npy"
        store.write_array(path, run)
        runs.append(np.load(path, mmap_mode="r", allow_pickle=False))
    _merge(files, runs)
    store.write_array(files.lengths, np.concatenate(lengths))
    shutil.rmtree(scratch)


def _run(
    texts: Sequence[str], analyzer: Analyzer, *, first_row: int
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Count the words of texts: the length of each text, and the postings, sorted by word and row."""
    numbers: dict[str, int] = {}
    occurrences: list[int] = []
    lengths = np.zeros(len(texts), np.int32)
    for row, text in enumerate(texts):
        text_words = analyzer.words(text)
        lengths[row] = len(text_words)
        occurrences += [numbers.setdefault(word, len(numbers)) for word in text_words]
    words = hashed(numbers)[np.array(occurrences, dtype=np.int64)]
    rows = np.repeat(np.arange(first_row, first_row + len(texts), dtype=np.int32), lengths)
    order = np.argsort(words, kind="stable")  # rows rise already
    words, rows = words[order], rows[order]
    new = np.ones(len(words), dtype=bool)
    new[1:] = (words[1:] != words[:-1]) | (rows[1:] != rows[:-1])
    first = np.flatnonzero(new)
    run = np.empty(len(first), _POSTING)
    run["word"], run["row"] = words[first], rows[first]
    run["count"] = np.minimum(np.diff(np.append(first, len(words))), _MAX_COUNT)
    return lengths, run


def _merge(files: PostingFiles, runs: Sequence[NDArray[Any]]) -> None:
    """Write the postings of all runs, one range of hashes at a time; hashes are spread evenly."""
    count = sum(map(len, runs))
    words: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    starts: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    with (
        store.array_writer(files.rows, np.dtype("<i4"), count) as write_rows,
        store.array_writer(files.counts, np.dtype("<u2"), count) as write_counts,
    ):
        written = 0
        for first, last in _ranges(-(-count // MERGED_AT_ONCE)):
            # bisect reads a few postings of a run, where np.searchsorted would copy all of its words.
            parts = [run[bisect_left(run["word"], first) : bisect_right(run["word"], last)] for run in runs]
            merged = np.concatenate(parts)
            merged = merged[np.argsort(merged["word"], kind="stable")]  # runs come in the order of their rows
            distinct, begins = np.unique(merged["word"], return_index=True)
            words.append(distinct)
            starts.append(begins + written)
            written += len(merged)
            write_rows(merged["row"])
            write_counts(merged["count"])
    store.write_array(files.words, np.concatenate(words))
    store.write_array(files.starts, np.concatenate([*starts, np.array([count])]))


def _ranges(count: int) -> Iterator[tuple[int, int]]:
    """Divide all hashes into ranges of equal size: the first and the last hash of each."""
    bounds = [2**64 * part // count for part in range(count + 1)] if count else []
    yield from ((first, after - 1) for first, after in pairwise(bounds))
