"""Changing a knowledge base in PostgreSQL: the steps of a folder, with its code for reading sources.

Passages are embedded and written a shard at a time, all in one transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError
from ragweave.knowledge.bm25 import Analyzer
from ragweave.knowledge.ingest.builder import IngestReport, LocalEngine, SeenHashes, Shard, read_shards
from ragweave.knowledge.ingest.loaders.loader import find_sources
from ragweave.knowledge.ingest.scan import (
    already_exists,
    compare_sources,
    first_manifest,
    id_taken,
    missing_sources,
    named_sources,
    next_manifest,
    no_text,
    report_skipped,
    scan_sources,
    settings_of,
    unknown_id,
)
from ragweave.knowledge.ingest_settings import ChangeOptions, IngestSettings, ReadSettings
from ragweave.knowledge.layout import PostgresUri
from ragweave.knowledge.manifest import EXACT, ChangeRecord, Manifest, SegmentRecord
from ragweave.knowledge.postgres.connection import Connection
from ragweave.knowledge.postgres.reader import existing, read_sources, read_state
from ragweave.knowledge.postgres.tables import FACTORY, Tables, check_index, choose_index, current_index
from ragweave.knowledge.postgres.write_transaction import Losses, Outcome, WriteTransaction, write_transaction
from ragweave.types import NoProgress, Passage, Progress, SourceChanges, SourceFile, Sources

if TYPE_CHECKING:  # brings torch, which deleting and compacting do not need
    from ragweave.encoders.text_encoder import TextEncoder


class PostgresWriter:
    """Changes the knowledge base in tables; `KnowledgeBase` describes the arguments."""

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
        options: ChangeOptions,
        overwrite: bool,
    ) -> None:
        """Build a knowledge base; see `KnowledgeBase.build`."""
        check_index(settings.index_kind, settings.index_parameters, encoder.dimension)
        files = find_sources(sources, follow_links=options.reading.follow_links)
        self._refuse_to_resume(options)
        with write_transaction(self.uri) as transaction:
            if transaction.state is not None and not overwrite:
                raise already_exists(self.path)
            scan = scan_sources(files, {}, {}, options)
            transaction.start_rebuild(encoder.dimension, words=settings.language is not None)
            report = self._write(transaction, scan.changed, encoder, settings, options, SeenHashes())
            outcome = transaction.remove(Losses(failed=report.failed))
            if not outcome.passages:
                raise no_text(scan.all_skipped(report))
            manifest = first_manifest(encoder, settings, scan.change("build", report, outcome.counts))
            options.progress.start("Indexing", None)
            _commit(transaction, manifest, outcome, sources=scan.read(report.failed))

    def add(
        self,
        sources: Sequence[Path | SourceFile],
        *,
        encoder: TextEncoder | Callable[[], TextEncoder],
        options: ChangeOptions,
        remove_missing: bool,
    ) -> None:
        """Add new and changed sources, and remove missing ones; see `KnowledgeBase.add`."""
        files = find_sources(sources, follow_links=options.reading.follow_links, allow_empty=remove_missing)
        self._refuse_to_resume(options)
        with write_transaction(self.uri) as transaction:
            manifest = existing(transaction.state, self.uri).manifest
            known = transaction.sources()
            missing = missing_sources(sources, files, known) if remove_missing else {}
            scan = scan_sources(files, known, missing, options)
            report = IngestReport()
            if scan.changed:
                encoder = manifest.encoder.check(encoder, self.path)  # another writer may have rebuilt it
                settings, seen = settings_of(manifest), _NewHashes(transaction)
                report = self._write(
                    transaction, scan.changed, encoder, settings, options, seen, replaced=scan.replaced()
                )
            if scan.after(report.failed) == known:
                report_skipped(scan.all_skipped(report), other_sources=bool(scan.unchanged))
                return
            outcome = transaction.remove(Losses(scan.replaced(report.failed), failed=report.failed))
            record = scan.change("sync" if remove_missing else "add", report, outcome.counts)
            after = next_manifest(manifest, record, manifest.segments)
            read = scan.read(report.failed)
            _commit(transaction, after, outcome, forgotten=scan.missing, sources=read)

    def compare(self, sources: Sequence[Path | SourceFile], reading: ReadSettings) -> SourceChanges:
        """What `add` would do; see `KnowledgeBase.compare`."""
        connection = Connection(self.uri)
        known = connection.run(lambda client: read_sources(client, Tables(self.uri.table)))
        connection.close()
        return compare_sources(sources, known, reading)

    def delete(self, *, ids: Sequence[str], sources: Sequence[str]) -> None:
        """Delete passages, documents and sources; see `KnowledgeBase.delete`."""
        with write_transaction(self.uri) as transaction:
            manifest = existing(transaction.state, self.uri).manifest
            for name, matches in transaction.rows_of(ids).items():
                if not matches:
                    raise unknown_id(name, self.path)
            known, passage_ids = transaction.sources(), transaction.passage_ids(ids)
            chosen = named_sources(sources, known, self.path)
            outcome = transaction.remove(Losses(chosen, passage_ids, set(ids) - passage_ids))
            record = ChangeRecord(kind="delete", **outcome.counts)
            forgotten = [key for key, source in known.items() if source.source in chosen]
            after = next_manifest(manifest, record, manifest.segments)
            _commit(transaction, after, outcome, forgotten=forgotten)

    def compact(self, *, keep: int | None, progress: Progress) -> None:
        """Choose the index again, and free the space of deleted rows; there are no versions to keep."""
        with write_transaction(self.uri) as transaction:
            manifest = existing(transaction.state, self.uri).manifest
            progress.start("Indexing", None)
            new = next_manifest(manifest, ChangeRecord(kind="compact"), manifest.segments)
            _commit(transaction, new, transaction.remove(Losses()))
        progress.start("Compacting", None)
        connection = Connection(self.uri)
        # Also updates the planner's statistics; not possible inside of a transaction.
        statement = Tables(self.uri.table).statement("VACUUM (ANALYZE) {passages}")
        connection.run(lambda client: client.execute(statement))
        connection.close()

    def prune(self, keep: int) -> None:
        """Do nothing: there is only one version."""

    def _refuse_to_resume(self, options: ChangeOptions) -> None:
        if options.resume:
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
        options: ChangeOptions,
        seen: SeenHashes,
        replaced: Collection[str] | None = None,
    ) -> IngestReport:
        """Read, embed and write files a shard at a time. In a rebuild, ``replaced`` is ``None``: no id is taken."""
        if settings.sparse is not None:
            raise ConfigurationError(
                f"{self.uri} is a database, which supports only the words of BM25. Leave the sparse encoder out, or "
                "build the knowledge base in a folder."
            )
        analyzer = None if settings.language is None else Analyzer(settings.language)
        report = IngestReport()
        # The engine reads ahead of the shards whose vectors it returns.
        pending: deque[Shard] = deque()

        def checked() -> Iterator[list[Passage]]:
            quietly = replace(options, progress=NoProgress())  # the engine reports the progress
            for shard in read_shards(files, encoder, settings.chunking, quietly, seen, report):
                ids = {passage.document_id for passage in (*shard.passages, *shard.copies)}
                taken = None if replaced is None else transaction.taken_id(ids, replaced)
                if taken:
                    raise id_taken(*taken, self.path)
                transaction.insert_copies(shard.copies, shard.copy_hashes)
                if shard.passages:
                    pending.append(shard)
                    yield shard.passages

        options.progress.start("Reading and embedding", None)
        for vectors in (options.engine or LocalEngine()).embed(checked(), encoder, options.progress):
            shard = pending.popleft()
            texts = (f"{passage.title}\n{passage.text}" for passage in shard.passages)
            words = None if analyzer is None else [analyzer.words(text) for text in texts]
            transaction.insert(shard.passages, shard.hashes, vectors, words)
        return report


class _NewHashes(SeenHashes):
    """Hashes are new if neither the tables nor the change contain them."""

    def __init__(self, transaction: WriteTransaction) -> None:
        super().__init__()
        self._transaction = transaction

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        new = super().add(hashes)
        new[new] = ~self._transaction.known(hashes[new])
        return new


def _commit(
    transaction: WriteTransaction,
    manifest: Manifest,
    outcome: Outcome,
    *,
    forgotten: Collection[str] = (),
    sources: Sources | None = None,
) -> None:
    """Commit a change with a manifest that has the counts from before it."""
    passages = manifest.passages + outcome.passages
    # PostgreSQL blocks writers while it builds an index, so only a build and a compaction choose another one.
    if manifest.change.kind in {"add", "sync", "delete"}:
        index = current_index(manifest)
        (segment,) = manifest.segments
    else:
        index = choose_index(manifest.index.kind, passages, manifest.dimension)
        segment = SegmentRecord("passages", 0, 0, 0, factory=FACTORY[index], recall=EXACT, files={})
    documents = manifest.documents + outcome.documents
    segment = replace(segment, rows=passages, passages=passages, documents=documents)
    manifest = replace(manifest, segments=(segment,))
    transaction.commit(manifest, index=index, forgotten=forgotten, sources=sources or {})
