"""Changing a knowledge base in PostgreSQL: the steps of a folder, with its code for reading sources.

Passages are embedded and written a shard at a time, all in one transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError
from ragweave.knowledge.bm25 import Analyzer
from ragweave.knowledge.ingest.builder import (
    Engine,
    IngestReport,
    KnownHashes,
    LocalEngine,
    SeenHashes,
    read_shards,
)
from ragweave.knowledge.ingest.loaders.loader import find_sources
from ragweave.knowledge.ingest.scan import (
    already_exists,
    first_manifest,
    id_taken,
    named_sources,
    next_manifest,
    no_text,
    report_skipped,
    scan_sources,
    settings_of,
    unknown_id,
)
from ragweave.knowledge.ingest_settings import IngestSettings, ReadSettings
from ragweave.knowledge.manifest import ChangeRecord, Manifest, SegmentRecord
from ragweave.knowledge.postgres.connection import Connection
from ragweave.knowledge.postgres.reader import existing, read_state
from ragweave.knowledge.postgres.tables import FACTORY, Tables, check_index, choose_index, current_index
from ragweave.knowledge.postgres.uri import PostgresUri
from ragweave.knowledge.postgres.write_transaction import Deletions, WriteTransaction, write_transaction
from ragweave.knowledge.source_records import SourceFile, Sources
from ragweave.types import NoProgress, Passage, Progress

if TYPE_CHECKING:  # brings torch, which deleting and compacting do not need
    from ragweave.encoders.text_encoder import TextEncoder


class PostgresWriter:
    """Changes the knowledge base in tables; `KnowledgeBase` describes the arguments.

    Args:
        uri: The knowledge base.
    """

    def __init__(self, uri: PostgresUri) -> None:
        self.uri, self.path = uri, str(uri)

    def check_output(self, *, overwrite: bool) -> None:
        """Check, before any work, that a knowledge base may be built here."""
        connection = Connection(self.uri)
        state = connection.run(lambda client: read_state(client, self.uri))
        connection.close()
        if state is not None and not overwrite:
            raise already_exists(self.path)

    def build(
        self,
        sources: Sequence[Path | SourceFile],
        *,
        encoder: TextEncoder,
        settings: IngestSettings,
        overwrite: bool,
        resume: bool,
        progress: Progress,
    ) -> None:
        """Build a knowledge base; see `KnowledgeBase.build`."""
        check_index(settings.index_kind, settings.index_parameters, encoder.dimension)
        files = find_sources(sources, follow_links=settings.reading.follow_links)
        self._refuse_to_resume(resume=resume)
        with write_transaction(self.uri) as transaction:
            if transaction.state is not None and not overwrite:
                raise already_exists(self.path)
            scan = scan_sources(files, {}, strict=settings.strict, progress=progress)
            transaction.start_rebuild(encoder.dimension, words=settings.language is not None)
            batch = self._write(transaction, scan.changed, encoder, settings, SeenHashes(), None, progress)
            if not batch.passages:
                raise no_text(scan.all_skipped(batch.report))
            record = scan.change("build", batch.report, added=batch.passages)
            progress.start("Indexing", None)
            _commit(
                transaction,
                first_manifest(encoder, settings, record),
                batch.passages,
                batch.documents,
                sources=scan.read(batch.report.failed),
            )

    def add(
        self,
        sources: Sequence[Path | SourceFile],
        *,
        encoder: TextEncoder,
        strict: bool,
        engine: Engine | None,
        reading: ReadSettings,
        resume: bool,
        progress: Progress,
    ) -> None:
        """Add new and changed sources; see `KnowledgeBase.add`."""
        files = find_sources(sources, follow_links=reading.follow_links)
        self._refuse_to_resume(resume=resume)
        with write_transaction(self.uri) as transaction:
            manifest = existing(transaction.state, self.uri).manifest
            manifest.encoder.check(encoder, self.path)  # another writer may have rebuilt it
            scan = scan_sources(files, transaction.sources(), strict=strict, progress=progress)
            if not scan.changed:
                report_skipped(scan.skipped, other_sources=bool(scan.records))
                return
            settings = settings_of(manifest, strict=strict, engine=engine, reading=reading)
            # A changed source may repeat its own old passages, so those do not count as duplicates.
            replaced = scan.replaced()
            seen = _NewHashes(transaction, replaced)
            batch = self._write(transaction, scan.changed, encoder, settings, seen, replaced, progress)
            deletions = Deletions(sources=scan.replaced(batch.report.failed))
            passages, documents = transaction.count(deletions)
            if not batch.passages and not passages:
                report_skipped(scan.all_skipped(batch.report), other_sources=bool(scan.unchanged))
                return
            record = scan.change("add", batch.report, added=batch.passages, deleted=passages)
            _commit(
                transaction,
                next_manifest(manifest, record, manifest.segments),
                manifest.passages + batch.passages - passages,
                manifest.documents + batch.documents - documents,
                sources=scan.read(batch.report.failed),
                deletions=deletions,
            )

    def delete(self, *, ids: Sequence[str], sources: Sequence[str]) -> None:
        """Delete passages, documents and sources; see `KnowledgeBase.delete`."""
        with write_transaction(self.uri) as transaction:
            manifest = existing(transaction.state, self.uri).manifest
            rows: set[int] = set()
            for name, matches in transaction.rows_of(ids).items():
                if not matches:
                    raise unknown_id(name, self.path)
                rows.update(matches)
            known = transaction.sources()
            chosen = named_sources(sources, known, self.path)
            deletions = Deletions(
                sources=chosen,
                rows=rows,
                forgotten=[key for key, record in known.items() if record.source in chosen],
            )
            passages, documents = transaction.count(deletions)
            _commit(
                transaction,
                next_manifest(manifest, ChangeRecord(kind="delete", deleted=passages), manifest.segments),
                manifest.passages - passages,
                manifest.documents - documents,
                deletions=deletions,
            )

    def compact(self, *, keep: int, progress: Progress) -> None:
        """Choose the index again, and return the space of deleted rows; there are no versions to keep."""
        with write_transaction(self.uri) as transaction:
            manifest = existing(transaction.state, self.uri).manifest
            progress.start("Indexing", None)
            new = next_manifest(manifest, ChangeRecord(kind="compact"), manifest.segments)
            _commit(transaction, new, manifest.passages, manifest.documents)
        progress.start("Compacting", None)
        connection = Connection(self.uri)
        statement = Tables(self.uri.table).vacuum()  # not possible inside of a transaction
        connection.run(lambda client: client.execute(statement))
        connection.close()

    def _refuse_to_resume(self, *, resume: bool) -> None:
        if resume:
            raise ConfigurationError(
                f"{self.uri} is a database, which keeps nothing of an interrupted change. Run the command without "
                "--resume."
            )

    def _write(
        self,
        transaction: WriteTransaction,
        files: Sequence[SourceFile],
        encoder: TextEncoder,
        settings: IngestSettings,
        seen: KnownHashes,
        replaced: Collection[str] | None,
        progress: Progress,
    ) -> _Batch:
        """Read, embed and write files, a shard at a time.

        Args:
            transaction: The change.
            files: What to read.
            encoder: Embeds passages.
            settings: How to read them.
            seen: The passages that the knowledge base has already.
            replaced: Sources whose old documents may share ids with new ones; ``None`` in a rebuild.
            progress: Receives the progress.

        Raises:
            SourceError: Another source has a document's id, or, with ``strict``, a source cannot be read.
        """
        analyzer = None if settings.language is None else Analyzer(settings.language, settings.analyzer)
        report = IngestReport()
        documents: dict[str, set[str]] = {}
        # The engine reads ahead of the shards whose vectors it returns.
        pending: deque[tuple[list[Passage], NDArray[np.uint64]]] = deque()

        def checked() -> Iterator[list[Passage]]:
            for shard, hashes in read_shards(files, encoder, settings, seen, report, NoProgress()):
                if not shard:
                    continue
                ids = {passage.document_id for passage in shard}
                taken = None if replaced is None else transaction.taken_id(ids, replaced)
                if taken:
                    raise id_taken(*taken, self.path)
                pending.append((shard, hashes))
                yield shard

        progress.start("Reading and embedding", None)
        for vectors in (settings.engine or LocalEngine()).embed(checked(), encoder, progress):
            shard, hashes = pending.popleft()
            texts = (f"{passage.title}\n{passage.text}" for passage in shard)
            words = None if analyzer is None else [analyzer.words(text) for text in texts]
            transaction.insert(shard, hashes, vectors, words)
            for passage in shard:
                documents.setdefault(passage.source, set()).add(passage.document_id)
        failed = set(report.failed)
        discarded = transaction.discard(failed) if failed else 0
        count = sum(len(ids) for source, ids in documents.items() if source not in failed)
        return _Batch(report.passages - discarded, count, report)


@dataclass(frozen=True, slots=True)
class _Batch:
    """The passages that a change wrote.

    Attributes:
        passages: Their number.
        documents: The number of their documents.
        report: What reading the sources gave.
    """

    passages: int
    documents: int
    report: IngestReport


class _NewHashes:
    """Satisfies `KnownHashes`: new is what neither the tables nor the change contain.

    Args:
        transaction: The change.
        replaced: Sources whose passages in the tables do not count.
    """

    def __init__(self, transaction: WriteTransaction, replaced: Collection[str]) -> None:
        self._transaction, self._replaced, self._seen = transaction, replaced, SeenHashes()

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Add M hashes; returns which of them are new, (M,)."""
        new = self._seen.add(hashes)
        new[new] = ~self._transaction.known(hashes[new], self._replaced)
        return new


def _commit(
    transaction: WriteTransaction,
    manifest: Manifest,
    passages: int,
    documents: int,
    *,
    deletions: Deletions | None = None,
    sources: Sources | None = None,
) -> None:
    """Commit a change, after which there are so many passages and documents."""
    # PostgreSQL blocks writers while it builds an index, so only a build and a compaction choose another one.
    index = (
        current_index(manifest)
        if manifest.change.kind in {"add", "delete"}
        else choose_index(manifest.index.kind, passages, manifest.dimension)
    )
    segment = SegmentRecord(
        name="passages",
        rows=passages,
        passages=passages,
        documents=documents,
        factory=FACTORY[index],
        recall=1.0 if index == "flat" else None,
        files={},
    )
    transaction.commit(
        replace(manifest, segments=(segment,)),
        index=index,
        deletions=deletions or Deletions(),
        sources=sources or {},
    )
