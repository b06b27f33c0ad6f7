"""Making a segment of a knowledge base from documents: reading, embedding, indexing, a shard at a time.

Vectors are safe on the disk shard by shard, so that an interrupted build can go on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import KnowledgeBaseError, MissingExtraError, SourceError
from ragweave.knowledge import store
from ragweave.knowledge.analyzer import Analyzer
from ragweave.knowledge.chunking_settings import Chunking
from ragweave.knowledge.ingest.chunking import chunk
from ragweave.knowledge.ingest.commit import prepared_segment
from ragweave.knowledge.ingest.duplicates import KnownHashes, hashes_of
from ragweave.knowledge.ingest.engines import Engine, LocalEngine
from ragweave.knowledge.ingest.loaders.loader import DocumentLoader
from ragweave.knowledge.layout import Layout, SegmentLayout
from ragweave.knowledge.manifest import FileRecord, SegmentRecord
from ragweave.knowledge.postings import write_postings
from ragweave.knowledge.source_records import SourceFile
from ragweave.knowledge.vector_index import factory_of, write_index

if TYPE_CHECKING:
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.progress import Progress
    from ragweave.types import Passage


@dataclass(frozen=True, slots=True)
class Settings:
    """How documents become a segment.

    Attributes:
        chunking: How documents are cut into passages.
        kind: How its vectors are searched; see `IndexRecord`.
        parameters: Settings of the search.
        strict: Whether a source that cannot be read ends the work.
        language: The language of the words that they are searched by; ``None`` for vectors alone.
        engine: What embeds the passages.
        flat_up_to: Up to how many passages every vector is compared, whatever the kind.
    """

    chunking: Chunking
    kind: str
    parameters: dict[str, int]
    strict: bool
    language: str | None = None
    engine: Engine = field(default_factory=LocalEngine)
    flat_up_to: int = 0


@dataclass(slots=True)
class Reading:
    """What reading found.

    Attributes:
        passages: How many passages were written.
        duplicates: How many were left out.
        failed: Sources that could not be read.
        skipped: Sentences that say why.
    """

    passages: int = 0
    duplicates: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Built:
    """A segment that was made.

    Attributes:
        record: What it holds; ``None`` where there was no passage to write.
        deleted: Rows of it that do not count, since their source turned out unreadable.
        reading: What reading found.
    """

    record: SegmentRecord | None
    deleted: NDArray[np.int64]
    reading: Reading


def build_segment(
    layout: Layout,
    files: Sequence[SourceFile],
    *,
    encoder: TextEncoder,
    settings: Settings,
    seen: KnownHashes,
    resume: bool,
    progress: Progress,
) -> Built:
    """Make the next segment where changes are prepared.

    Args:
        layout: The knowledge base, locked.
        files: What to read.
        encoder: What embeds the passages.
        settings: How.
        seen: Hashes of the passages that are there already.
        resume: Whether reading has been done, and some of the embedding.
        progress: Hears how far it is.

    Raises:
        SourceError: With ``strict``, a source that cannot be read.
        OSError: The disk is full or cannot be written.
    """
    segment, notes = prepared_segment(layout), layout.work / "reading.json"
    if resume and notes.exists():
        reading = Reading(**json.loads(notes.read_bytes()))
    else:
        segment.folder.mkdir(exist_ok=True)
        reading = _read(segment, files, encoder, settings, seen, progress)
        store.replace_text(notes, json.dumps(asdict(reading)))
    table = store.PassageTable(segment.passages)
    dead = np.array(table.rows_with("source", reading.failed), dtype=np.int64)
    if len(dead) == reading.passages:
        return Built(None, np.zeros(0, np.int64), reading)
    begun = store.vectors_written(segment.vectors)
    progress.start("Embedding", reading.passages)
    progress.advance(begun)
    vectors = settings.engine.embed(table.shards(begun), encoder, progress)
    store.write_vectors(segment.vectors, vectors, reading.passages, encoder.dimension, begun=begun)
    return Built(finished(segment, settings, dead, progress, layout.work / "postings"), dead, reading)


def finished(
    segment: SegmentLayout,
    settings: Settings,
    deleted: NDArray[np.int64],
    progress: Progress,
    workshop: Path,
) -> SegmentRecord:
    """Index a segment whose passages and vectors are written, and describe it."""
    table, vectors = store.PassageTable(segment.passages), store.read_vectors(segment.vectors)
    if settings.language is not None:
        progress.start("Indexing words", len(table))
        texts = _texts(table, progress)
        write_postings(segment.postings, texts, Analyzer(settings.language), workshop)
    progress.start("Indexing", None)
    segment.index.unlink(missing_ok=True)  # of a build that was interrupted here
    kind = "flat" if len(table) <= settings.flat_up_to else settings.kind
    factory = factory_of(kind, len(table), vectors.shape[1])
    recall = write_index(segment.index, vectors, factory, settings.parameters)
    return SegmentRecord(
        name="",
        rows=len(table),
        passages=len(table) - len(deleted),
        documents=len(table.distinct("document_id", without=deleted.tolist())),
        factory=factory,
        recall=recall,
        files={path.name: FileRecord.of(path) for path in segment.data},
    )


def _read(
    segment: SegmentLayout,
    files: Sequence[SourceFile],
    encoder: TextEncoder,
    settings: Settings,
    seen: KnownHashes,
    progress: Progress,
) -> Reading:
    """Write the passages of all files that can be read, and their hashes."""
    reading = Reading()
    hashes: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    progress.start("Reading", len(files))
    for path in (segment.passages, segment.hashes):
        path.unlink(missing_ok=True)  # of a build that was interrupted here
    store.write_passages(
        segment.passages, read_shards(files, encoder, settings, seen, reading, hashes, progress)
    )
    store.write_array(segment.hashes, np.concatenate(hashes))
    return reading


def read_shards(
    files: Sequence[SourceFile],
    encoder: TextEncoder,
    settings: Settings,
    seen: KnownHashes,
    reading: Reading,
    hashes: list[NDArray[np.uint64]],
    progress: Progress,
) -> Iterator[list[Passage]]:
    """Cut the documents of files into passages and yield these in shards, each passage once.

    Args:
        files: What to read.
        encoder: What will embed the passages, and knows its tokens.
        settings: How.
        seen: What is there already.
        reading: Is told what was found.
        hashes: Gets the hashes of every shard, when that is yielded.
        progress: Hears of every file.
    """
    shard: list[Passage] = []
    documents = DocumentLoader()
    for file in files:
        try:
            for document in documents.load(file):
                shard.extend(chunk(document, settings.chunking, tokenizer=encoder))
                while len(shard) >= store.SHARD:
                    yield _distinct(shard[: store.SHARD], seen, reading, hashes)
                    shard = shard[store.SHARD :]
        except (SourceError, MissingExtraError) as error:
            if settings.strict:
                raise
            # What of it has been written already is struck out afterwards.
            reading.failed.append(file.source)
            reading.skipped.append(str(error))
        progress.advance(1)
    if shard:
        yield _distinct(shard, seen, reading, hashes)


def _distinct(
    shard: list[Passage], seen: KnownHashes, reading: Reading, hashes: list[NDArray[np.uint64]]
) -> list[Passage]:
    own = hashes_of(shard)
    new = seen.add(own)
    hashes.append(own[new])
    kept = [passage for passage, is_new in zip(shard, new.tolist(), strict=True) if is_new]
    reading.passages += len(kept)
    reading.duplicates += len(shard) - len(kept)
    return kept


def _texts(table: store.PassageTable, progress: Progress) -> Iterator[list[str]]:
    """Yield the titles and texts of all passages, shard by shard."""
    for passages in table.shards():
        yield [f"{passage.title}\n{passage.text}" for passage in passages]
        progress.advance(len(passages))


def occupied(place: Path | str) -> KnowledgeBaseError:
    """What is raised where a knowledge base would be replaced without having been asked for."""
    return KnowledgeBaseError(
        f"There is a knowledge base at {place} already: use 'ragweave add' to add to it, add --overwrite "
        "(overwrite=True) to replace its content, or choose another output."
    )


def check_output(layout: Layout, *, overwrite: bool) -> None:
    """Check, before any work is done, that a knowledge base may be written to a place.

    Args:
        layout: The knowledge base.
        overwrite: Whether one that is there gets a new version.

    Raises:
        KnowledgeBaseError: A knowledge base is there and ``overwrite`` is false, or something else is there.
    """
    output = layout.root
    if layout.is_knowledge_base():
        if not overwrite:
            raise occupied(output)
    elif output.is_dir():
        if any(output.iterdir()):
            raise KnowledgeBaseError(
                f"The folder {output} holds other files and is not a knowledge base: choose another output."
            )
    elif output.exists() or output.is_symlink():
        raise KnowledgeBaseError(f"{output} is a file, not a folder: choose another output.")
