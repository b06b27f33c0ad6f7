"""Builds a segment of a knowledge base: reads documents, embeds their passages and indexes them, shard by shard.

Every shard of vectors is synced to the disk before the next, so that an interrupted build can be resumed.

Notation used for tensor shapes: M passages, D vector size.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ragweave.errors import MissingExtraError, OmissionWarning, SourceError, SourceWarning
from ragweave.knowledge import store
from ragweave.knowledge.bm25 import Analyzer, LearnedWords, hashed, merge_postings, write_postings
from ragweave.knowledge.ingest.loaders.loader import DocumentLoader
from ragweave.knowledge.ingest.loaders.text import printable
from ragweave.knowledge.ingest.transaction import merged_segment, staged_segment
from ragweave.knowledge.ingest_settings import ChangeOptions, Chunking, IngestSettings
from ragweave.knowledge.layout import Layout, SegmentLayout
from ragweave.knowledge.manifest import EXACT, FileRecord, SegmentRecord, SparseRecord
from ragweave.knowledge.snapshot import Segment
from ragweave.knowledge.vector_index import FLAT, factory_of, least_recall, write_index
from ragweave.types import Passage, Progress, SourceFile

if TYPE_CHECKING:  # brings torch, which deleting and compacting do not need
    from ragweave.encoders.text_encoder import TextEncoder


class Engine(Protocol):
    """Embeds passages; `LocalEngine` does so in this process, `RayEngine` on a cluster."""

    def embed(
        self, shards: Iterable[list[Passage]], encoder: TextEncoder, progress: Progress
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the vectors of each shard of passages with their titles, (M, D), in order; advance the progress."""


class LocalEngine:
    """Embeds in this process, on the encoder's device."""

    def embed(
        self, shards: Iterable[list[Passage]], encoder: TextEncoder, progress: Progress
    ) -> Iterator[NDArray[np.float32]]:
        """Embed passages with their titles; see `Engine`."""
        for passages in shards:
            texts, titles = [one.text for one in passages], [one.title for one in passages]
            yield encoder.encode(texts, titles=titles, progress=progress.advance)


@dataclass(slots=True)
class IngestReport:
    """The passages and failures of reading the sources."""

    passages: int = 0  # number of passages that were written
    without_text: int = 0  # number of sources that gave no passage
    failed: list[str] = field(default_factory=list)  # sources that could not be read
    skipped: list[str] = field(default_factory=list)  # one sentence for each of them that says why


@dataclass(frozen=True, slots=True)
class StagedSegment:
    """A segment that is ready to be committed."""

    record: SegmentRecord | None  # its record; ``None`` if there was no passage to write
    hashes: NDArray[np.uint64]  # the hashes of its passages
    discarded: NDArray[np.int64]  # its rows whose source turned out to be unreadable
    copies: store.PassageTable  # the passages that were read and have the same title and text as others
    positions: NDArray[np.int64]  # which of them count because their source could be read, (M,)
    copy_hashes: NDArray[np.uint64]
    report: IngestReport


class Shard(NamedTuple):
    """Passages that were read."""

    passages: list[Passage]  # the new ones
    hashes: NDArray[np.uint64]  # their hashes
    copies: list[Passage]  # those that repeat others, with empty title and text
    copy_hashes: NDArray[np.uint64]  # their hashes


class SeenHashes:
    """A set of hashes in sorted runs, each more than twice as long as the next: eight bytes per passage."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.uint64]] = []

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Add M hashes and return which of them are new, (M,); of several equal ones, the first."""
        distinct, first = np.unique(hashes, return_index=True)
        known = np.zeros(len(distinct), dtype=bool)
        for run in self._runs:
            positions = np.minimum(np.searchsorted(run, distinct), len(run) - 1)
            known |= run[positions] == distinct
        new = np.zeros(len(hashes), dtype=bool)
        new[first[~known]] = True
        if not known.all():
            self._runs.append(distinct[~known])
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort(kind="stable")
            self._runs.append(merged)
        return new


def build_segment(
    layout: Layout,
    files: Sequence[SourceFile],
    encoder: TextEncoder,
    settings: IngestSettings,
    options: ChangeOptions,
    seen: SeenHashes,
) -> StagedSegment:
    """Stage the next segment of a knowledge base, which is locked; ``seen`` are the passages that it already has."""
    segment, report_path = staged_segment(layout), layout.work / "reading.json"
    copies_path, copy_hashes_path = layout.work / "copies.arrow", layout.work / "copy_hashes.npy"
    # The report is written when all passages are, so it also marks the end of that step.
    if options.resume and report_path.exists():
        report = IngestReport(**json.loads(report_path.read_bytes()))
    else:
        segment.folder.mkdir(exist_ok=True)
        for path in (segment.passages, segment.hashes, copies_path, copy_hashes_path):
            path.unlink(missing_ok=True)  # left by an interrupted build
        report = IngestReport()
        all_hashes: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
        all_copy_hashes = all_hashes.copy()
        options.progress.start("Reading", len(files))
        with (
            store.passage_writer(segment.passages) as write,
            store.passage_writer(copies_path) as write_copies,
        ):
            for shard in read_shards(files, encoder, settings.chunking, options, seen, report):
                write(shard.passages)
                all_hashes.append(shard.hashes)
                write_copies(shard.copies)
                all_copy_hashes.append(shard.copy_hashes)
        store.write_array(segment.hashes, np.concatenate(all_hashes))
        store.write_array(copy_hashes_path, np.concatenate(all_copy_hashes))
        store.replace_text(report_path, json.dumps(asdict(report)))
    table, copies = store.PassageTable(segment.passages), store.PassageTable(copies_path)
    discarded = np.array(table.rows_with("source", report.failed), dtype=np.int64)
    positions = np.setdiff1d(np.arange(len(copies)), copies.rows_with("source", report.failed))
    copy_hashes = store.read_array(copy_hashes_path, np.uint64)[positions]
    hashes: NDArray[np.uint64] = np.load(segment.hashes)
    record = None
    # A passage whose source is unreadable stays if another source holds it.
    if len(discarded) < len(table) or np.isin(hashes, copy_hashes).any():
        record = embed_segment(layout, encoder, settings, options)
    return StagedSegment(record, hashes, discarded, copies, positions, copy_hashes, report)


def read_shards(
    files: Sequence[SourceFile],
    encoder: TextEncoder,
    chunking: Chunking,
    options: ChangeOptions,
    seen: SeenHashes,
    report: IngestReport,
) -> Iterator[Shard]:
    """Read files, cut their documents into passages, and separate copies; fills in the report."""

    def sort_out(passages: list[Passage]) -> Shard:
        # Two different passages among 20 million share a hash with a probability of about one in 100,000.
        hashes = hashed(f"{passage.title}\0{passage.text}" for passage in passages)
        new = seen.add(hashes)
        shard = Shard([], hashes[new], [], hashes[~new])
        for passage, is_new in zip(passages, new.tolist(), strict=True):
            if is_new:
                shard.passages.append(passage)
            else:
                shard.copies.append(replace(passage, title="", text=""))
        report.passages += len(shard.passages)
        return shard

    pending: list[Passage] = []
    loader = DocumentLoader(options.reading)
    for file in files:
        try:
            passages = loader.load_passages(file, chunking, encoder)
            has_text = False
            for passage in _refuse_loss(passages) if options.strict else passages:
                has_text = True
                pending.append(passage)
                if len(pending) == store.SHARD:
                    yield sort_out(pending)
                    pending = []
            report.without_text += not has_text
        except (SourceError, MissingExtraError) as error:
            if options.strict:
                raise
            # Passages of this file may have been written already. The caller deletes them.
            report.failed.append(file.source)
            report.skipped.append(printable(str(error)))
        options.progress.advance(1)
    if pending:
        yield sort_out(pending)


def _refuse_loss(passages: Iterator[Passage]) -> Iterator[Passage]:
    """Yield passages, and raise a `SourceError` where their loader warns that a part of the file is lost."""
    while True:
        # Filters belong to the whole process, so they are changed only while the loader runs.
        with warnings.catch_warnings():
            warnings.simplefilter("error", SourceWarning)
            warnings.simplefilter("always", OmissionWarning)
            try:
                passage = next(passages, None)
            except SourceWarning as loss:
                raise SourceError(f"{loss} Leave out --strict (strict=False) to keep the rest.") from loss
        if passage is None:
            return
        yield passage


def embed_segment(
    layout: Layout, encoder: TextEncoder, settings: IngestSettings, options: ChangeOptions
) -> SegmentRecord:
    """Embed the staged passages, except those that an interrupted run embedded, and index the segment."""
    segment, progress = staged_segment(layout), options.progress
    table, done = store.PassageTable(segment.passages), store.vectors_written(segment.vectors)
    progress.start("Embedding", len(table))
    progress.advance(done)
    vectors = (options.engine or LocalEngine()).embed(table.shards(done), encoder, progress)
    store.write_vectors(segment.vectors, vectors, len(table), encoder.dimension, begun=done)
    if settings.language is not None:
        progress.start("Indexing words", len(table))
        texts = _texts(table, progress)
        analyzer: Analyzer | LearnedWords = Analyzer(settings.language)
        if settings.sparse is not None:
            sparse = settings.sparse
            analyzer = LearnedWords(sparse.load() if isinstance(sparse, SparseRecord) else sparse)
        write_postings(segment.postings, texts, analyzer, layout.work / "postings")
    return _index_vectors(segment, table, settings, progress)


def merge_segments(
    layout: Layout,
    parts: Sequence[tuple[Segment, NDArray[np.int64]]],
    passages: Iterable[list[Passage]],
    settings: IngestSettings,
    progress: Progress,
) -> SegmentRecord:
    """Stage rows of several segments, ascending in each, as one, in `merged_segment`.

    Nothing is embedded or split into words again. ``passages`` are those of all these rows.
    """
    segment, count = merged_segment(layout), sum(len(rows) for _, rows in parts)
    shutil.rmtree(segment.folder, ignore_errors=True)  # left by an interrupted change
    segment.folder.mkdir()
    progress.start("Copying", count)
    store.write_passages(segment.passages, passages)
    store.write_array(segment.hashes, np.concatenate([part.hashes[rows] for part, rows in parts]))
    store.write_vectors(segment.vectors, _vectors(parts, progress), count, parts[0][0].vectors.shape[1])
    if settings.language is not None:
        progress.start("Indexing words", None)
        postings = [(part.postings, rows) for part, rows in parts if part.postings is not None]
        merge_postings(segment.postings, postings)
    return _index_vectors(segment, store.PassageTable(segment.passages), settings, progress)


def _vectors(
    parts: Sequence[tuple[Segment, NDArray[np.int64]]], progress: Progress
) -> Iterator[NDArray[np.float32]]:
    for part, rows in parts:
        for start in range(0, len(rows), store.SHARD):
            shard = rows[start : start + store.SHARD]
            yield part.vectors[shard]
            progress.advance(len(shard))


def _index_vectors(
    segment: SegmentLayout, table: store.PassageTable, settings: IngestSettings, progress: Progress
) -> SegmentRecord:
    progress.start("Indexing", None)
    vectors = store.read_array(segment.vectors, np.float32, ndim=2)
    segment.index.unlink(missing_ok=True)  # left by an interrupted build
    kind = "flat" if len(table) <= settings.flat_up_to else settings.index_kind
    factory = factory_of(kind, len(table), vectors.shape[1])
    least = least_recall(settings.index_kind)
    recall, breadth = write_index(segment.index, vectors, factory, settings.index_parameters, least=least)
    if settings.index_kind == "auto" and factory != FLAT and min(recall.values()) < least:
        # A graph misses too many of the nearest vectors, however widely it searches.
        segment.index.unlink()
        factory, recall, breadth = FLAT, EXACT, 1
    return SegmentRecord(
        name="",
        rows=len(table),
        passages=len(table),
        documents=pc.count_distinct(table.column("document_id")).as_py(),
        factory=factory,
        recall=recall,
        breadth=breadth,
        measured=len(table),
        files={path.name: FileRecord.of(path) for path in segment.data},
    )


def _texts(table: store.PassageTable, progress: Progress) -> Iterator[list[str]]:
    for passages in table.shards():
        yield [f"{passage.title}\n{passage.text}" for passage in passages]
        progress.advance(len(passages))
