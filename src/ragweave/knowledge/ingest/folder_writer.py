"""The writer of a knowledge base in a folder: build, add, delete, compact, reembed, and swap versions.

Every change is staged beside the existing versions and committed in one step; see the module `transaction`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge import store
from ragweave.knowledge.ingest.builder import (
    IngestReport,
    SeenHashes,
    StagedSegment,
    build_segment,
    embed_segment,
    merge_segments,
)
from ragweave.knowledge.ingest.folder_change import NO_ROWS, FolderChange
from ragweave.knowledge.ingest.loaders.loader import find_sources
from ragweave.knowledge.ingest.scan import (
    SourceScan,
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
from ragweave.knowledge.ingest.transaction import (
    commit,
    merged_segment,
    remove_versions,
    staged_segment,
    staging,
    transaction,
)
from ragweave.knowledge.ingest_settings import ChangeOptions, IngestSettings, ReadSettings
from ragweave.knowledge.layout import Layout, Pointer, SegmentLayout
from ragweave.knowledge.manifest import FORMAT_VERSION, ChangeRecord, Manifest, SegmentRecord
from ragweave.knowledge.snapshot import Snapshot
from ragweave.knowledge.stored_states import drop_stale
from ragweave.knowledge.vector_index import check_kind
from ragweave.types import Progress, SourceChanges, SourceFile

if TYPE_CHECKING:  # brings torch, which deleting and compacting do not need
    from ragweave.encoders.text_encoder import TextEncoder

FLAT_ADDITIONS = 20_000
"""Additions of up to this many passages get no index until they are compacted: they are too few to train one."""


class FolderWriter:
    """Changes the knowledge base in a folder; `KnowledgeBase` describes the arguments."""

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
        options: ChangeOptions,
        overwrite: bool,
    ) -> None:
        """Build a knowledge base, or a new version from these sources alone; see `KnowledgeBase.build`."""
        check_kind(settings.index_kind, settings.index_parameters, encoder.dimension)
        files = find_sources(sources, follow_links=options.reading.follow_links)
        self.check_output(overwrite=overwrite)
        with staging(self.path, resume=options.resume) as layout:
            scan = scan_sources(files, {}, {}, options)
            _check_plan(layout, _ingest_plan(encoder, settings, options, scan), resume=options.resume)
            built = build_segment(layout, scan.changed, encoder, settings, options, SeenHashes())
            if built.record is None:
                raise no_text(scan.all_skipped(built.report))
            change = FolderChange(None, built)
            record = scan.change("build", built.report, change.counts)
            change.commit(layout, first_manifest(encoder, settings, record), scan.read(built.report.failed))

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
        with transaction(self.path, resume=options.resume, resumable=True) as layout:
            current = Snapshot.open(self.path)
            manifest = current.manifest
            settings = settings_of(manifest, flat_up_to=FLAT_ADDITIONS)
            missing = missing_sources(sources, files, current.sources) if remove_missing else {}
            scan = scan_sources(files, current.sources, missing, options)
            report = IngestReport()
            built: StagedSegment | None = None
            if scan.changed:
                encoder = manifest.encoder.check(encoder, self.path)  # another writer may have rebuilt it
                _check_plan(layout, _ingest_plan(encoder, settings, options, scan), resume=options.resume)
                seen = SeenHashes()
                for hashes, _ in current.live_hashes():
                    seen.add(hashes)
                built = build_segment(layout, scan.changed, encoder, settings, options, seen)
                report = built.report
            after, replaced = scan.after(report.failed), scan.replaced(report.failed)
            if after == current.sources:
                report_skipped(scan.all_skipped(report), other_sources=bool(scan.unchanged))
                return
            if built is not None:
                _check_ids(current, built, replaced)
            lost = current.rows_with("source", replaced)
            change = FolderChange(current, built, lost, current.copies.matches("source", replaced))
            record = scan.change("sync" if remove_missing else "add", report, change.counts)
            change.commit(layout, next_manifest(manifest, record, ()), after)

    def compare(self, sources: Sequence[Path | SourceFile], reading: ReadSettings) -> SourceChanges:
        """What `add` would do; see `KnowledgeBase.compare`."""
        return compare_sources(sources, Snapshot.open(self.path).sources, reading)

    def delete(self, *, ids: Sequence[str], sources: Sequence[str]) -> None:
        """Delete passages, documents and sources; see `KnowledgeBase.delete`."""
        with transaction(self.path) as layout:
            current = Snapshot.open(self.path)
            for name, matches in current.rows_of(ids).items():
                if not matches:
                    raise unknown_id(name, self.path)
            named = named_sources(sources, current.sources, self.path)
            rows, copies = NO_ROWS, np.zeros(len(current.copies.rows), dtype=bool)
            passage_ids = current.passage_ids(ids)
            documents = set(ids) - passage_ids
            for column, values in (("id", passage_ids), ("document_id", documents), ("source", named)):
                rows = np.union1d(rows, current.rows_with(column, values))
                copies |= current.copies.matches(column, values)
            remaining = {key: record for key, record in current.sources.items() if record.source not in named}
            change = FolderChange(current, None, rows, copies)
            record = ChangeRecord(kind="delete", **change.counts)
            change.commit(layout, next_manifest(current.manifest, record, ()), remaining)
            drop_stale(layout)

    def compact(self, *, keep: int | None, progress: Progress) -> None:
        """Merge all segments into one, and delete old versions; see `KnowledgeBase.compact`."""
        with transaction(self.path) as layout:
            current = Snapshot.open(self.path)
            manifest = current.manifest
            if len(manifest.segments) > 1 or len(current.deleted):
                record = None
                if len(current):
                    parts = [(part, part.live_rows()) for part in current.segments]
                    passages, settings = current.live_passages(), settings_of(manifest)
                    record = merge_segments(layout, parts, passages, settings, progress)
                after = next_manifest(manifest, ChangeRecord(kind="compact"), ())
                _commit_copied(layout, after, record, current, staged=merged_segment(layout))
            if keep is not None:
                _remove_old_versions(layout, keep)
            drop_stale(layout)

    def prune(self, keep: int) -> None:
        """Delete old versions; see `KnowledgeBase.prune`."""
        if len(Layout(self.path).version_names()) > keep + 1:
            with transaction(self.path) as layout:
                _remove_old_versions(layout, keep)

    def reembed(
        self,
        snapshot: Snapshot,
        *,
        encoder: TextEncoder,
        options: ChangeOptions,
        keep: int | None,
        keep_named: Collection[str],
    ) -> None:
        """Write the passages of a knowledge base here, embedded by another encoder; see `KnowledgeBase.reembed`."""
        if not len(snapshot):
            raise KnowledgeBaseError(
                f"The knowledge base at {snapshot.path} is empty: there is nothing to embed."
            )
        self.check_output(overwrite=True)
        settings = settings_of(snapshot.manifest)
        with staging(self.path, resume=options.resume) as layout:
            plan = {"encoder": encoder.fingerprint, "reembeds": snapshot.manifest.checksum}
            _check_plan(layout, plan, resume=options.resume)
            segment, copied = staged_segment(layout), layout.work / "copied"
            if not copied.exists():
                segment.folder.mkdir(exist_ok=True)
                for path in (segment.passages, segment.hashes):
                    path.unlink(missing_ok=True)  # left by an interrupted run
                store.write_passages(segment.passages, snapshot.live_passages())
                hashes = np.concatenate([part for part, _ in snapshot.live_hashes()])
                store.write_array(segment.hashes, hashes)
                store.write_text(copied, "")  # marks the end of this step, for resume
            record = embed_segment(layout, encoder, settings, options)
            manifest = first_manifest(encoder, settings, ChangeRecord(kind="reembed", added=len(snapshot)))
            _commit_copied(layout, manifest, record, snapshot)
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


def _commit_copied(
    layout: Layout,
    manifest: Manifest,
    new: SegmentRecord | None,
    snapshot: Snapshot,
    staged: SegmentLayout | None = None,
) -> None:
    """Commit the staged live passages of a snapshot with their ids and sources."""
    others = np.flatnonzero(~snapshot.copies.current)
    live = np.setdiff1d(np.arange(snapshot.manifest.rows), snapshot.deleted, assume_unique=True)
    rows = np.searchsorted(live, snapshot.copies.rows[others])
    commit(
        layout,
        manifest,
        new=new,
        deleted=NO_ROWS,
        sources=snapshot.sources,
        copies=snapshot.copies.table.take_shards(others),
        copy_rows=np.stack([rows, np.zeros_like(rows)], axis=1),
        staged=staged,
    )


def _check_ids(current: Snapshot, built: StagedSegment, replaced: Collection[str]) -> None:
    """Refuse new documents with ids that documents of other sources have."""
    table = store.PassageTable(staged_segment(current.layout).passages)
    failed = np.setdiff1d(np.arange(len(built.copies)), built.positions)
    ids = {
        *table.counts("document_id", built.discarded),
        *built.copies.counts("document_id", failed),
    }
    if taken := current.taken_id(ids, replaced):
        raise id_taken(*taken, current.path)


def _remove_old_versions(layout: Layout, keep: int, named: Collection[str] = ()) -> None:
    """Delete all versions except the current one, the named ones, and the ``keep`` newest others."""
    protected = {layout.read_current().version, *named}
    older = [name for name in layout.version_names() if name not in protected]
    remove_versions(layout, older[: max(len(older) - keep, 0)])


def _ingest_plan(
    encoder: TextEncoder, settings: IngestSettings, options: ChangeOptions, scan: SourceScan
) -> dict[str, Any]:
    """The settings and sources that determine the passages and vectors of this run."""
    return {
        "format": FORMAT_VERSION,
        "encoder": encoder.fingerprint,
        "chunking": settings.chunking.to_record(),
        "index": settings.index_kind,
        "language": settings.language,
        "sparse": None if settings.sparse is None else settings.sparse.fingerprint,
        "metadata": options.reading.metadata,
        "sources": {key: record.sha256 for key, record in scan.read(()).items()},
    }


def _check_plan(layout: Layout, plan: dict[str, Any], *, resume: bool) -> None:
    """Record the plan of this run; with ``resume``, check that it equals the interrupted one."""
    path = layout.work / "plan.json"
    if not path.exists():
        store.replace_text(path, json.dumps(plan))
    elif not resume or json.loads(path.read_bytes()) != plan:
        raise KnowledgeBaseError(
            f"The interrupted run in {layout.root} had other sources or settings: run the command without --resume "
            "to start again."
        )
