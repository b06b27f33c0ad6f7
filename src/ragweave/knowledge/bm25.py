"""Search by words: the analyzer, a segment's postings, BM25 over any number of segments, and learned weights.

BM25 is that of Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", in the form
that Lucene computes. Weights are computed per question: a new segment changes how rare a word is in all others.

Postings are, for every word, the rows it occurs in and how often, sorted by the hashes of the words. They are written
with bounded memory: each shard becomes a sorted run on disk, and runs are merged one range of hashes at a time.

Notation used for tensor shapes: N rows, M words of a question (in `RowScores`, M rows), W distinct words, P postings.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import regex
import Stemmer
from icu4py.breakers import WordBreaker
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge import store
from ragweave.knowledge.layout import PostingFiles

if TYPE_CHECKING:  # brings torch
    from ragweave.encoders.sparse_encoder import SparseEncoder

NO_LANGUAGE = "none"  # the language of words that are neither stemmed nor filtered

UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Chinese and Japanese, in a set of a regular expression: without spaces between words, every character is a word."""

# Scripts without spaces whose words a dictionary finds.
_DICTIONARY = r"[[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]--\p{P}]"
# Runs of letters and digits with their combining marks, which are half of the vowels of Hindi, Tamil or Thai.
_WORD = regex.compile(
    rf"[{UNSPACED}]|(?P<run>{_DICTIONARY}+)"
    rf"|(?:(?!{_DICTIONARY})[\p{{L}}\p{{N}}--[{UNSPACED}]][\p{{M}}]*)+",
    regex.V1,
)
# Letters with and without points of Hebrew or vowel signs of Arabic are the same word; so are words with and without
# soft hyphens and joiners. Lower case turns the Turkish capital I with a dot into two characters.
_LEFT_OUT = regex.compile(
    r"(?<=\p{Hebrew})[\p{M}]+|(?<=\p{Arabic})[\p{M}\u0640]+|[\u00ad\u200c\u200d]|(?<=i)\u0307", regex.V1
)
_LETTERS_ALONE = 10  # runs of such a script up to this length are one word, as in a question
_WEIGHT_STEPS = 1024  # for a learned weight of 1; weights above 64 are capped

_ASCII_WORD = re.compile(r"[^\W_]+", re.ASCII)  # a faster `_WORD` for ASCII

_ENGLISH_STOP_WORDS = frozenset(
    _ASCII_WORD.findall(
        "a an and are as at be but by did do does for from had has have he her his how i if in into is it its no not "
        "of on or our she so such that the their then there these they this to us was we were what when where which "
        "who whom whose why will with you your"
    )
)


class Analyzer:
    """Splits texts into words: lower case, without stop words, stemmed unless the language is ``"none"``."""

    def __init__(self, language: str = "english") -> None:
        if language != NO_LANGUAGE and language not in Stemmer.algorithms():
            raise ConfigurationError(
                f"There is no stemmer for the language {language!r}. Choose {NO_LANGUAGE} or one of "
                f"{', '.join(sorted(Stemmer.algorithms()))}."
            )
        self.language = language
        self._stem = None if language == NO_LANGUAGE else Stemmer.Stemmer(language).stemWords
        self._stop_words = _ENGLISH_STOP_WORDS if language == "english" else frozenset()

    def words(self, text: str) -> list[str]:
        """The words of a text in their order."""
        text = unicodedata.normalize("NFKC", text).casefold()
        words = _ASCII_WORD.findall(text) if text.isascii() else list(_words(text))
        if self._stop_words:
            words = [word for word in words if word not in self._stop_words]
        return words if self._stem is None else self._stem(words)

    def postings(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """How many words each text has, and the postings, sorted by word and row."""
        numbers: dict[str, int] = {}
        occurrences: list[int] = []
        lengths = np.zeros(len(texts), np.int32)
        for row, text in enumerate(texts):
            text_words = self.words(text)
            lengths[row] = len(text_words)
            occurrences += [numbers.setdefault(word, len(numbers)) for word in text_words]
        words = hashed(numbers)[np.array(occurrences, dtype=np.int64)]
        rows = np.repeat(np.arange(len(texts), dtype=np.int32), lengths)
        order = np.argsort(words, kind="stable")  # rows are already ascending
        words, rows = words[order], rows[order]
        new = np.ones(len(words), dtype=bool)
        new[1:] = (words[1:] != words[:-1]) | (rows[1:] != rows[:-1])
        first = np.flatnonzero(new)
        run = np.empty(len(first), POSTING)
        run["word"], run["row"] = words[first], rows[first]
        run["count"] = np.minimum(np.diff(np.append(first, len(words))), MAX_COUNT)
        return lengths, run


def _words(text: str) -> Iterator[str]:
    for match in _WORD.finditer(_LEFT_OUT.sub("", text)):
        run = match["run"]
        if run is None or len(run) <= _LETTERS_ALONE:
            yield match[0]
            continue
        words = [word for word in WordBreaker(run, "en") if word[0].isalnum()]
        yield from words
        # A short run is one word in a question although the dictionary may know it as two.
        yield from (pair for pair in map("".join, pairwise(words)) if len(pair) <= _LETTERS_ALONE)


def hashed(words: Iterable[str]) -> NDArray[np.uint64]:
    """Hash M words, (M,). Two of ten million words share a hash with a probability of three in a million."""
    digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words)
    return np.frombuffer(digests, dtype="<u8")


# --- Postings ---

MERGED_AT_ONCE = 1 << 22  # about how many postings are in memory during a merge

POSTING = np.dtype([("word", "<u8"), ("row", "<i4"), ("count", "<u2")])
MAX_COUNT = 0xFFFF


class Postings:
    """The postings of a segment, memory-mapped; raises `KnowledgeBaseError` if a file is missing or damaged."""

    def __init__(self, files: PostingFiles) -> None:
        self.words = store.read_array(files.words, np.uint64)
        self.starts = store.read_array(files.starts, np.int64)
        # Unsigned, so that a damaged row is out of bounds and never counts from the end.
        self.rows = store.read_array(files.rows, np.int32).view(np.uint32)
        self.counts = store.read_array(files.counts, np.uint16)
        self.lengths = store.read_array(files.lengths, np.int32)
        consistent = len(self.starts) == len(self.words) + 1 and len(self.rows) == len(self.counts)
        if not consistent or self.starts[-1] != len(self.rows) or (np.diff(self.starts, prepend=0) < 0).any():
            raise store.damaged(files.starts)
        if (self.lengths < 0).any():
            raise store.damaged(files.lengths)
        self.path = files.rows

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
    files: PostingFiles, shards: Iterable[Sequence[str]], analyzer: Analyzer | LearnedWords, scratch: Path
) -> None:
    """Write the postings of all rows, whose texts come in shards; ``scratch`` is a folder for temporary files."""
    for path in files:
        path.unlink(missing_ok=True)  # left by an interrupted build
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    lengths: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
    runs: list[NDArray[Any]] = []
    for number, texts in enumerate(shards):
        shard_lengths, run = analyzer.postings(texts)
        run["row"] += sum(map(len, lengths))
        lengths.append(shard_lengths)
        path = scratch / f"{number}.npy"
        store.write_array(path, run)
        runs.append(store.read_array(path, POSTING))
    _merge(files, [partial(_between, run) for run in runs], sum(map(len, runs)))
    store.write_array(files.lengths, np.concatenate(lengths))
    shutil.rmtree(scratch)


def merge_postings(files: PostingFiles, parts: Sequence[tuple[Postings, NDArray[np.int64]]]) -> None:
    """Write the postings of rows of several segments, ascending in each, renumbered from 0."""
    runs: list[_Run] = []
    start = count = 0
    for postings, rows in parts:
        numbers = np.full(len(postings), -1, np.int32)
        numbers[rows] = np.arange(start, start + len(rows))
        runs.append(partial(_renumbered, postings, numbers))
        for first in range(0, len(postings.rows), MERGED_AT_ONCE):
            try:
                count += int((numbers[postings.rows[first : first + MERGED_AT_ONCE]] >= 0).sum())
            except IndexError as error:
                raise store.damaged(postings.path) from error
        start += len(rows)
    _merge(files, runs, count)
    store.write_array(files.lengths, np.concatenate([postings.lengths[rows] for postings, rows in parts]))


_Run = Callable[[int, int], NDArray[Any]]
"""Gives the postings of the words in a range of hashes, sorted by word and row."""


def _between(run: NDArray[Any], first: int, last: int) -> NDArray[Any]:
    # bisect reads a few postings of a run, where np.searchsorted would copy all of its words.
    return run[bisect_left(run["word"], first) : bisect_right(run["word"], last)]


def _renumbered(postings: Postings, numbers: NDArray[np.int32], first: int, last: int) -> NDArray[Any]:
    words = slice(bisect_left(postings.words, first), bisect_right(postings.words, last))
    starts = postings.starts[words.start : words.stop + 1]
    part = slice(starts[0], starts[-1])
    run = np.empty(part.stop - part.start, POSTING)
    run["word"] = np.repeat(postings.words[words], np.diff(starts))
    run["row"], run["count"] = numbers[postings.rows[part]], postings.counts[part]
    return run[run["row"] >= 0]


def _merge(files: PostingFiles, runs: Sequence[_Run], count: int) -> None:
    """Write the postings of all runs, one range of hashes at a time; hashes are spread evenly."""
    words: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    starts: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    with (
        store.array_writer(files.rows, np.dtype("<i4"), count) as write_rows,
        store.array_writer(files.counts, np.dtype("<u2"), count) as write_counts,
    ):
        written = 0
        for first, last in _ranges(-(-count // MERGED_AT_ONCE)):
            merged = np.concatenate([run(first, last) for run in runs])
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


# --- Scores ---


class BM25:
    """Scores rows by the words they share with a question, in segments whose rows follow one another.

    A larger ``k1`` gives repeated words more weight; a larger ``b``, from 0 to 1, gives long passages less. Both
    defaults are usual for short passages (Yang, Fang and Lin 2017, "Anserini").
    """

    def __init__(self, segments: Sequence[Postings], *, k1: float = 0.9, b: float = 0.4) -> None:
        check_parameters(k1, b)
        self.segments = segments
        self._count = sum(map(len, segments))
        mean = sum(int(segment.lengths.sum(dtype=np.int64)) for segment in segments) / max(self._count, 1)
        self._length_norms = [
            (k1 * (1 - b + b * segment.lengths / (mean or 1.0))).astype(np.float32) for segment in segments
        ]

    def scores(self, words: Sequence[str]) -> NDArray[np.float32]:
        """Score all rows, (N,): 0 for rows without any of the words; a word that occurs twice counts twice."""
        distinct, counts = np.unique(hashed(words), return_counts=True)
        slices = [segment.slices(distinct) for segment in self.segments]
        frequencies = [sum(part.stop - part.start for part in parts) for parts in zip(*slices, strict=True)]
        weights = counts * np.array([idf(self._count, frequency) for frequency in frequencies])
        norms = self._length_norms
        return weighted_sums(self.segments, slices, weights, lambda n, rows, tf: tf / (tf + norms[n][rows]))


def weighted_sums(
    segments: Sequence[Postings],
    slices: Sequence[Sequence[slice]],
    weights: NDArray[Any],
    value: Callable[[int, NDArray[np.uint32], NDArray[np.float32]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Score all rows, (N,), by the sum of the weights of M words, (M,), each times its value for the row.

    ``slices`` are those of the words in each segment. ``value`` returns the values of postings from the number of
    their segment, their rows and their counts.
    """
    scores = [np.zeros(0, np.float32)]
    for number, (segment, parts) in enumerate(zip(segments, slices, strict=True)):
        total = np.zeros(len(segment), dtype=np.float32)
        for part, weight in zip(parts, weights, strict=True):
            rows = segment.rows[part]
            try:
                total[rows] += np.float32(weight) * value(
                    number, rows, segment.counts[part].astype(np.float32)
                )
            except IndexError as error:
                raise store.damaged(segment.path) from error
        scores.append(total)
    return np.concatenate(scores)


@dataclass(frozen=True, slots=True)
class RowScores:
    """The scores of all rows; satisfies `WordScores`."""

    values: NDArray[np.float32]  # (N,), minus infinity for deleted rows

    def best(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most K rows, best first, and their scores."""
        rows = best(self.values, n)
        return rows, self.values[rows]

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of M rows, (M,)."""
        return self.values[rows]


def check_parameters(k1: float, b: float) -> None:
    """Raise `ConfigurationError` if a parameter of BM25 is out of range."""
    if not (k1 >= 0 and math.isfinite(k1)):
        raise ConfigurationError(f"k1 is {k1}. Give 0 or more.")
    if not 0 <= b <= 1:
        raise ConfigurationError(f"b is {b}. Give a number from 0 to 1.")


def no_words(location: object) -> KnowledgeBaseError:
    """The error for BM25 in a knowledge base that was built without words."""
    return KnowledgeBaseError(
        f"The knowledge base at {location} was built to be searched by vectors alone. Build it again with "
        "--overwrite to search it by words."
    )


def idf(count: int, frequency: int) -> float:
    """The inverse document frequency of a word that occurs in ``frequency`` of ``count`` rows."""
    return math.log1p((count - frequency + 0.5) / (frequency + 0.5))


def best(scores: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """Positions of the K largest of N scores, (K,), best first; ties go to the earlier, and -inf never counts."""
    n = min(n, int((scores > -np.inf).sum()))
    if not n:
        return np.zeros(0, np.int64)
    least = np.partition(scores, len(scores) - n)[len(scores) - n]
    above = np.flatnonzero(scores > least)
    top = np.concatenate([above, np.flatnonzero(scores == least)[: n - len(above)]])
    return top[np.lexsort((top, -scores[top]))]


class LearnedWords:
    """Replaces `Analyzer` and `BM25` where a sparse encoder weighs the words.

    Postings hold weights in place of counts, as whole numbers. The score of a row is the inner product of its weights
    with those of the question.
    """

    def __init__(self, encoder: SparseEncoder) -> None:
        self._encoder = encoder
        self._hashes = hashed(map(str, range(int(encoder.model.config.vocab_size))))

    def postings(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """How many words each text has, and the postings, sorted by word and row."""
        rows, words, weights = self._encoder.encode(texts)
        counts = np.minimum(np.rint(weights * _WEIGHT_STEPS), MAX_COUNT)
        kept = counts > 0
        run = np.empty(int(kept.sum()), POSTING)
        run["word"], run["row"], run["count"] = self._hashes[words[kept]], rows[kept], counts[kept]
        lengths = np.bincount(rows[kept], minlength=len(texts)).astype(np.int32)
        return lengths, run[np.argsort(run["word"], kind="stable")]

    def scores(self, segments: Sequence[Postings], question: str) -> NDArray[np.float32]:
        """Score all rows, (N,)."""
        _, words, weights = self._encoder.encode([question], prompt=self._encoder.question_prompt)
        slices = [segment.slices(self._hashes[words]) for segment in segments]
        return weighted_sums(segments, slices, weights / _WEIGHT_STEPS, lambda _segment, _rows, count: count)
