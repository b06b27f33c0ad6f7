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
from numpy.typing import NDArray

from ragweave.errors import MissingExtraError, OmissionWarning, SourceError, SourceWarning
from ragweave.knowledge import store
from ragweave.knowledge.bm25 import Analyzer, LearnedWords, hashed, merge_postings, write_postings
from ragweave.knowledge.ingest.loaders.loader import DocumentLoader
from ragweave.knowledge.ingest.loaders.text import printable
from ragweave.knowledge.ingest.transaction import merged_segment, staged_segment
from ragweave.knowledge.ingest_settings import IngestSettings
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
        """Embed passages with their titles, and advance the progress by each of them.

        Yields:
            The vectors of each shard, (M, D), in the order of the passages.
        """
        ...


class LocalEngine:
    """Embeds in this process, on the encoder's device."""

    def embed(
        self, shards: Iterable[list[Passage]], encoder: TextEncoder, progress: Progress
    ) -> Iterator[NDArray[np.float32]]:
        """Embed passages with their titles; see `Engine`."""
        for passages in shards:
            yield encoder.encode(
                [passage.text for passage in passages],
                titles=[passage.title for passage in passages],
                progress=progress.advance,
            )


@dataclass(slots=True)
class IngestReport:
    """What reading the sources gave.

    Attributes:
        passages: Number of passages that were written.
        failed: Sources that could not be read.
        skipped: One sentence for each of them that says why.
    """

    passages: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StagedSegment:
    """A segment that is ready to be committed.

    Attributes:
        record: Its record; ``None`` if there was no passage to write.
        hashes: The hashes of its passages.
        discarded: Its rows whose source turned out to be unreadable.
        copies: The passages that were read and have the title and text of others.
        positions: Which of them count, as their source could be read, (M,).
        copy_hashes: Their hashes, (M,).
        report: What reading the sources gave.
    """

    record: SegmentRecord | None
    hashes: NDArray[np.uint64]
    discarded: NDArray[np.int64]
    copies: store.PassageTable
    positions: NDArray[np.int64]
    copy_hashes: NDArray[np.uint64]
    report: IngestReport


class Shard(NamedTuple):
    """Passages that were read.

    Attributes:
        passages: The new ones.
        hashes: Their hashes.
        copies: Those with the title and text of others, without these.
        copy_hashes: Their hashes.
    """

    passages: list[Passage]
    hashes: NDArray[np.uint64]
    copies: list[Passage]
    copy_hashes: NDArray[np.uint64]


class KnownHashes(Protocol):
    """Tells which hashes of passages are new."""

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Add M hashes and return which of them are new, (M,); of several equal ones, the first."""
        ...


class SeenHashes:
    """A set of hashes in sorted runs, each more than twice as long as the next: eight bytes per passage."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.uint64]] = []

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Add M hashes; see `KnownHashes`."""
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
    seen: KnownHashes,
    progress: Progress,
    *,
    resume: bool,
) -> StagedSegment:
    """Stage the next segment.

    Args:
        layout: The knowledge base, locked.
        files: The files to read.
        encoder: Embeds the passages, and its tokenizer measures them.
        settings: How the segment is made.
        seen: Hashes of the passages that the knowledge base already has.
        progress: Receives the progress.
        resume: Continue where an interrupted build stopped.

    Raises:
        SourceError: With ``strict``, a source that cannot be read.
        OSError: The disk is full or cannot be written.
    """
    segment, report_path = staged_segment(layout), layout.work / "reading.json"
    copies_path, copy_hashes_path = layout.work / "copies.arrow", layout.work / "copy_hashes.npy"
    # The report is written when all passages are, so it also marks the end of that step.
    if resume and report_path.exists():
        report = IngestReport(**json.loads(report_path.read_bytes()))
    else:
        segment.folder.mkdir(exist_ok=True)
        for path in (segment.passages, segment.hashes, copies_path, copy_hashes_path):
            path.unlink(missing_ok=True)  # of a build that was interrupted here
        report = IngestReport()
        all_hashes: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
        all_copy_hashes = all_hashes.copy()
        progress.start("Reading", len(files))
        with (
            store.passage_writer(segment.passages) as write,
            store.passage_writer(copies_path) as write_copies,
        ):
            for shard in read_shards(files, encoder, settings, seen, report, progress):
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
        record = embed_segment(layout, encoder, settings, progress)
    return StagedSegment(record, hashes, discarded, copies, positions, copy_hashes, report)


def read_shards(
    files: Sequence[SourceFile],
    encoder: TextEncoder,
    settings: IngestSettings,
    seen: KnownHashes,
    report: IngestReport,
    progress: Progress,
) -> Iterator[Shard]:
    """Read files, cut their documents into passages, and tell copies apart; fills in the report on the way.

    Raises:
        SourceError: With ``strict``, a source that cannot be read, or a part of it that is lost.
    """

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
    loader = DocumentLoader(settings.reading)
    for file in files:
        try:
            passages = loader.load_passages(file, settings.chunking, encoder)
            for passage in _refuse_loss(passages) if settings.strict else passages:
                pending.append(passage)
                if len(pending) == store.SHARD:
                    yield sort_out(pending)
                    pending = []
        except (SourceError, MissingExtraError) as error:
            if settings.strict:
                raise
            # Passages of this file may have been written already. The caller deletes them.
            report.failed.append(file.source)
            report.skipped.append(printable(str(error)))
        progress.advance(1)
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
    layout: Layout, encoder: TextEncoder, settings: IngestSettings, progress: Progress
) -> SegmentRecord:
    """Embed the staged passages, or those that an interrupted run has not embedded yet, and index the segment."""
    segment = staged_segment(layout)
    table, done = store.PassageTable(segment.passages), store.vectors_written(segment.vectors)
    progress.start("Embedding", len(table))
    progress.advance(done)
    vectors = (settings.engine or LocalEngine()).embed(table.shards(done), encoder, progress)
    store.write_vectors(segment.vectors, vectors, len(table), encoder.dimension, begun=done)
    return index_segment(layout, settings, progress)


def index_segment(layout: Layout, settings: IngestSettings, progress: Progress) -> SegmentRecord:
    """Index the staged segment, whose passages and vectors are written, and describe it."""
    segment = staged_segment(layout)
    table = store.PassageTable(segment.passages)
    if settings.language is not None:
        progress.start("Indexing words", len(table))
        texts = _texts(table, progress)
        analyzer: Analyzer | LearnedWords = Analyzer(settings.language, settings.analyzer)
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
    """Stage rows of several segments as one, in `merged_segment`. Nothing is embedded or split into words again.

    Args:
        layout: The knowledge base, locked.
        parts: Segments, and their rows to take, rising.
        passages: The passages of all these rows, in shards.
        settings: How the segment is indexed.
        progress: Receives the progress.
    """
    segment, count = merged_segment(layout), sum(len(rows) for _, rows in parts)
    shutil.rmtree(segment.folder, ignore_errors=True)  # of a change that was interrupted here
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
    vectors = store.read_vectors(segment.vectors)
    segment.index.unlink(missing_ok=True)  # of a build that was interrupted here
    kind = "flat" if len(table) <= settings.flat_up_to else settings.index_kind
    factory = factory_of(kind, len(table), vectors.shape[1])
    least = least_recall(settings.index_kind)
    recall, breadth = write_index(segment.index, vectors, factory, settings.index_parameters, least=least)
    if settings.index_kind == "auto" and factory != FLAT and min(recall.values()) < least:
        # A graph loses too much of these vectors, however far it looks.
        segment.index.unlink()
        factory, recall, breadth = FLAT, EXACT, 1
    return SegmentRecord(
        name="",
        rows=len(table),
        passages=len(table),
        documents=len(table.counts("document_id")),
        factory=factory,
        recall=recall,
        breadth=breadth,
        measured=len(table),
        files={path.name: FileRecord.of(path) for path in segment.data},
    )


def _texts(table: store.PassageTable, progress: Progress) -> Iterator[list[str]]:
    """Yield the titles and texts of all passages, shard by shard."""
    for passages in table.shards():
        yield [f"{passage.title}\n{passage.text}" for passage in passages]
        progress.advance(len(passages))
