"""The writer of a knowledge base in a folder: build, add, delete, compact, reembed, and swap versions.

Every change is staged beside the existing versions and committed in one step; see the module `transaction`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge import store
from ragweave.knowledge.ingest.builder import (
    Engine,
    SeenHashes,
    StagedSegment,
    build_segment,
    embed_segment,
    index_segment,
)
from ragweave.knowledge.ingest.loaders.loader import find_sources
from ragweave.knowledge.ingest.scan import (
    SourceScan,
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
from ragweave.knowledge.ingest.transaction import (
    commit,
    remove_versions,
    staged_segment,
    staging,
    transaction,
)
from ragweave.knowledge.ingest_settings import IngestSettings, ReadSettings
from ragweave.knowledge.layout import Layout, Pointer
from ragweave.knowledge.manifest import ChangeRecord, Manifest
from ragweave.knowledge.snapshot import Snapshot
from ragweave.knowledge.source_records import SourceFile
from ragweave.knowledge.vector_index import check_kind
from ragweave.types import Progress

if TYPE_CHECKING:  # brings torch, which deleting and compacting do not need
    from ragweave.encoders.text_encoder import TextEncoder

FLAT_ADDITIONS = 20_000
"""Additions of up to this many passages get no index until they are compacted: they are too few to train one."""

_NO_ROWS: NDArray[np.int64] = np.zeros(0, np.int64)


class FolderWriter:
    """Changes the knowledge base in a folder; `KnowledgeBase` describes the arguments.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def check_output(self, *, overwrite: bool) -> None:
        """Check, before any work, that a knowledge base may be built here."""
        if Layout(self.path).is_knowledge_base():
            if not overwrite:
                raise already_exists(self.path)
        elif self.path.is_dir():
            if any(self.path.iterdir()):
                raise KnowledgeBaseError(
                    f"The folder {self.path} holds other files and is not a knowledge base: choose another output."
                )
        elif self.path.exists() or self.path.is_symlink():
            raise KnowledgeBaseError(f"{self.path} is a file, not a folder: choose another output.")

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
        """Build a knowledge base, or a new version from these sources alone; see `KnowledgeBase.build`."""
        check_kind(settings.index_kind, settings.index_parameters, encoder.dimension)
        files = find_sources(sources, follow_links=settings.reading.follow_links)
        self.check_output(overwrite=overwrite)
        with staging(self.path, resume=resume) as layout:
            scan = scan_sources(files, {}, strict=settings.strict, progress=progress)
            _check_plan(layout, _ingest_plan(encoder, settings, scan), resume=resume)
            seen = SeenHashes()
            built = build_segment(layout, scan.changed, encoder, settings, seen, progress, resume=resume)
            if built.record is None:
                raise no_text(scan.all_skipped(built.report))
            change = scan.change("build", built.report, added=built.record.passages)
            commit(
                layout,
                first_manifest(encoder, settings, change),
                new=built.record,
                deleted=built.deleted,
                sources=scan.read(built.report.failed),
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
        with transaction(self.path, resume=resume, resumable=True) as layout:
            current = Snapshot.open(self.path)
            manifest = current.manifest
            manifest.encoder.check(encoder, self.path)  # another writer may have rebuilt it
            settings = settings_of(
                manifest, strict=strict, engine=engine, flat_up_to=FLAT_ADDITIONS, reading=reading
            )
            scan = scan_sources(files, current.sources, strict=strict, progress=progress)
            if not scan.changed:
                report_skipped(scan.skipped, other_sources=bool(scan.records))
                return
            _check_plan(layout, _ingest_plan(encoder, settings, scan), resume=resume)
            seen = SeenHashes()
            # A changed source may repeat its own old passages, so those do not count as duplicates.
            for hashes in current.hashes_without(current.rows_with("source", scan.replaced())):
                seen.add(hashes)
            built = build_segment(layout, scan.changed, encoder, settings, seen, progress, resume=resume)
            replaced = current.rows_with("source", scan.replaced(built.report.failed))
            if built.record is None and not len(replaced):
                report_skipped(scan.all_skipped(built.report), other_sources=bool(scan.unchanged))
                return
            if built.record is not None:
                _check_ids(current, built, replaced)
            added = 0 if built.record is None else built.record.passages
            change = scan.change("add", built.report, added=added, deleted=len(replaced))
            # The rows of the new segment follow all others.
            deleted = np.concatenate([np.union1d(current.deleted, replaced), built.deleted + manifest.rows])
            sources_after = current.sources | scan.read(built.report.failed)
            after = next_manifest(manifest, change, current.records_without(deleted))
            commit(layout, after, new=built.record, deleted=deleted, sources=sources_after)

    def delete(self, *, ids: Sequence[str], sources: Sequence[str]) -> None:
        """Delete passages, documents and sources; see `KnowledgeBase.delete`."""
        with transaction(self.path) as layout:
            current = Snapshot.open(self.path)
            rows: set[int] = set()
            for name, matches in current.rows_of(ids).items():
                if not matches:
                    raise unknown_id(name, self.path)
                rows.update(matches)
            named = named_sources(sources, current.sources, self.path)
            rows.update(current.rows_with("source", named).tolist())
            new = np.array(sorted(rows), dtype=np.int64)
            deleted = np.union1d(current.deleted, new)
            remaining = {key: record for key, record in current.sources.items() if record.source not in named}
            change = ChangeRecord(kind="delete", deleted=len(new))
            after = next_manifest(current.manifest, change, current.records_without(deleted))
            commit(layout, after, new=None, deleted=deleted, sources=remaining)

    def compact(self, *, keep: int, progress: Progress) -> None:
        """Merge all segments into one, and delete old versions; see `KnowledgeBase.compact`."""
        with transaction(self.path) as layout:
            current = Snapshot.open(self.path)
            manifest = current.manifest
            if len(manifest.segments) > 1 or len(current.deleted):
                record = None
                if len(current):
                    segment = staged_segment(layout)
                    segment.folder.mkdir()
                    progress.start("Copying", len(current))
                    _copy_passages(current, layout)
                    vectors = _live_vectors(current, progress)
                    store.write_vectors(segment.vectors, vectors, len(current), manifest.dimension)
                    record = index_segment(layout, settings_of(manifest), _NO_ROWS, progress)
                after = next_manifest(manifest, ChangeRecord(kind="compact"), ())
                commit(layout, after, new=record, deleted=_NO_ROWS, sources=current.sources)
            _remove_old_versions(layout, keep)

    def reembed(
        self,
        snapshot: Snapshot,
        *,
        encoder: TextEncoder,
        engine: Engine | None,
        keep: int | None,
        keep_named: Collection[str],
        resume: bool,
        progress: Progress,
    ) -> None:
        """Write the passages of a knowledge base here, embedded by another encoder; see `KnowledgeBase.reembed`."""
        if not len(snapshot):
            raise KnowledgeBaseError(
                f"The knowledge base at {snapshot.path} is empty: there is nothing to embed."
            )
        self.check_output(overwrite=True)
        settings = settings_of(snapshot.manifest, engine=engine)
        with staging(self.path, resume=resume) as layout:
            plan = {"encoder": encoder.fingerprint, "reembeds": snapshot.manifest.checksum}
            _check_plan(layout, plan, resume=resume)
            segment, copied = staged_segment(layout), layout.work / "copied"
            if not copied.exists():
                segment.folder.mkdir(exist_ok=True)
                for path in (segment.passages, segment.hashes):
                    path.unlink(missing_ok=True)  # of a run that was interrupted here
                _copy_passages(snapshot, layout)
                store.write_text(copied, "")  # marks the end of this step, for resume
            record = embed_segment(layout, encoder, settings, _NO_ROWS, progress)
            manifest = first_manifest(encoder, settings, ChangeRecord(kind="reembed", added=len(snapshot)))
            commit(layout, manifest, new=record, deleted=_NO_ROWS, sources=snapshot.sources)
            if keep is not None:
                _remove_old_versions(layout, keep, keep_named)

    def swap(self, version: str) -> None:
        """Make another version current; see `KnowledgeBase.swap`."""
        with transaction(self.path) as layout:
            names = layout.version_names()
            if version not in names:
                raise KnowledgeBaseError(
                    f"There is no version '{version}' in {self.path}; there are {', '.join(names) or 'none'}."
                )
            manifest = Manifest.read(layout.version(version).manifest)
            Snapshot(layout, version, manifest)  # raises if a file is missing or damaged
            layout.write_current(Pointer(version, manifest.checksum[:16]))


def _check_ids(current: Snapshot, built: StagedSegment, replaced: NDArray[np.int64]) -> None:
    """Refuse new documents with ids that other documents have."""
    table = store.PassageTable(staged_segment(current.layout).passages)
    ids = table.counts("document_id", without=built.deleted.tolist())
    if taken := current.taken_id(ids, replaced):
        raise id_taken(*taken, current.path)


def _copy_passages(snapshot: Snapshot, layout: Layout) -> None:
    """Stage all passages that are not deleted, and their hashes, as one segment without vectors."""
    segment = staged_segment(layout)
    shards = (part.table.take(rows) for part, rows in snapshot.live_shards())
    store.write_passages(segment.passages, shards)
    store.write_array(segment.hashes, np.concatenate(list(snapshot.hashes_without(_NO_ROWS))))


def _live_vectors(snapshot: Snapshot, progress: Progress) -> Iterator[NDArray[np.float32]]:
    for part, rows in snapshot.live_shards():
        yield part.vectors[rows]
        progress.advance(len(rows))


def _remove_old_versions(layout: Layout, keep: int, named: Collection[str] = ()) -> None:
    """Delete all versions but the current one, the named ones, and the ``keep`` newest others."""
    protected = {layout.read_current().version, *named}
    older = [name for name in layout.version_names() if name not in protected]
    remove_versions(layout, older[: max(len(older) - keep, 0)])


def _ingest_plan(encoder: TextEncoder, settings: IngestSettings, scan: SourceScan) -> dict[str, Any]:
    """What determines the passages and vectors that are about to be made."""
    return {
        "encoder": encoder.fingerprint,
        "chunking": settings.chunking.to_record(),
        "index": settings.index_kind,
        "language": settings.language,
        "sources": {file.key: scan.records[file.key].sha256 for file in scan.changed},
    }


def _check_plan(layout: Layout, plan: dict[str, Any], *, resume: bool) -> None:
    """Record what is about to be done; with ``resume``, check that it is what was interrupted.

    Raises:
        KnowledgeBaseError: The interrupted run had another plan.
    """
    path = layout.work / "plan.json"
    if not path.exists():
        store.replace_text(path, json.dumps(plan))
    elif not resume or json.loads(path.read_bytes()) != plan:
        raise KnowledgeBaseError(
            f"The interrupted run in {layout.root} had other sources or settings: run the command without --resume "
            "to start again."
        )
