"""The changes of a knowledge base in a folder: build, add, delete, compact, reembed, and swap versions.

Every change is staged beside the existing versions and committed in one step; see the module `transaction`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragweave import __version__
from ragweave.encoders.text_encoder import TextEncoder
from ragweave.errors import KnowledgeBaseError, SourceError, SourceWarning
from ragweave.knowledge import store
from ragweave.knowledge.ingest.builder import (
    Engine,
    IngestSettings,
    SeenHashes,
    StagedSegment,
    build_segment,
    embed_segment,
    index_segment,
)
from ragweave.knowledge.ingest.transaction import (
    check_output,
    commit,
    remove_versions,
    staged_segment,
    staging,
)
from ragweave.knowledge.layout import Layout, Pointer
from ragweave.knowledge.manifest import (
    FORMAT_VERSION,
    ChangeRecord,
    EncoderRecord,
    IndexRecord,
    Manifest,
    SegmentRecord,
)
from ragweave.knowledge.progress import Progress
from ragweave.knowledge.snapshot import Snapshot
from ragweave.knowledge.source_records import SourceFile, Sources, fingerprint, named_by

METRIC = "inner product"

FLAT_ADDITIONS = 20_000
"""Additions of up to this many passages get no index until they are compacted: they are too few to train one."""

_NO_ROWS: NDArray[np.int64] = np.zeros(0, np.int64)


def build(
    files: Sequence[SourceFile],
    output: Path,
    *,
    encoder: TextEncoder,
    settings: IngestSettings,
    overwrite: bool,
    resume: bool,
    progress: Progress,
) -> None:
    """Build a knowledge base, or a new version of one from these files alone; see `KnowledgeBase.build`."""
    check_output(output, overwrite=overwrite)
    with staging(output, resume=resume) as layout:
        scan = scan_sources(files, {}, strict=settings.strict, progress=progress)
        _check_plan(layout, _ingest_plan(encoder, settings, scan), resume=resume)
        built = build_segment(
            layout,
            scan.changed,
            encoder=encoder,
            settings=settings,
            seen=SeenHashes(),
            resume=resume,
            progress=progress,
        )
        skipped = (*scan.skipped, *built.report.skipped)
        if built.record is None:
            raise no_text(skipped)
        change = ChangeRecord(
            kind="build", added=built.record.passages, duplicates=built.report.duplicates, skipped=skipped
        )
        commit(
            layout,
            first_manifest(encoder, settings, change),
            new=built.record,
            deleted=built.deleted,
            sources=scan.read(built.report.failed),
        )


def add(
    base: Snapshot,
    files: Sequence[SourceFile],
    *,
    encoder: TextEncoder,
    strict: bool,
    engine: Engine | None,
    resume: bool,
    progress: Progress,
) -> None:
    """Add new and changed files, in place of what was read from them before; see `KnowledgeBase.add`."""
    layout, manifest = Layout(base.path), base.manifest
    settings = IngestSettings.of(manifest, strict=strict, engine=engine, flat_up_to=FLAT_ADDITIONS)
    scan = scan_sources(files, base.sources, strict=strict, progress=progress)
    if not scan.changed:
        report_skipped(scan.skipped, other_sources=bool(scan.records))
        return
    _check_plan(layout, _ingest_plan(encoder, settings, scan), resume=resume)
    seen = SeenHashes()
    # A changed source may repeat its own old passages, so those do not count as duplicates.
    for hashes in base.hashes_without(base.rows_with("source", scan.replaced())):
        seen.add(hashes)
    built = build_segment(
        layout, scan.changed, encoder=encoder, settings=settings, seen=seen, resume=resume, progress=progress
    )
    replaced = base.rows_with("source", scan.replaced(built.report.failed))
    skipped = (*scan.skipped, *built.report.skipped)
    if built.record is None and not len(replaced):
        report_skipped(skipped, other_sources=bool(scan.unchanged))
        return
    _check_ids(base, built, replaced)
    change = ChangeRecord(
        kind="add",
        added=0 if built.record is None else built.record.passages,
        deleted=len(replaced),
        duplicates=built.report.duplicates,
        unchanged=scan.unchanged,
        skipped=skipped,
    )
    # The rows of the new segment follow all others.
    deleted = np.concatenate([np.union1d(base.deleted, replaced), built.deleted + manifest.rows])
    _commit(
        base, change, new=built.record, deleted=deleted, sources=base.sources | scan.read(built.report.failed)
    )


def delete(base: Snapshot, *, ids: Sequence[str], sources: Sequence[str]) -> None:
    """Delete passages, documents and sources; see `KnowledgeBase.delete`."""
    rows: set[int] = set()
    for name in ids:
        matches = base.row_of(name)
        if not matches:
            raise unknown_id(name, base.path)
        rows.update(matches)
    named = named_by(sources, base.sources, base.path)
    rows.update(base.rows_with("source", named).tolist())
    new = np.array(sorted(rows), dtype=np.int64)
    _commit(
        base,
        ChangeRecord(kind="delete", deleted=len(new)),
        new=None,
        deleted=np.union1d(base.deleted, new),
        sources={key: record for key, record in base.sources.items() if record.source not in named},
    )


def compact(base: Snapshot, *, keep: int, progress: Progress) -> None:
    """Merge all segments into one, and remove old versions; see `KnowledgeBase.compact`."""
    layout, manifest = Layout(base.path), base.manifest
    if len(manifest.segments) > 1 or len(base.deleted):
        record = None
        if len(base):
            staged_segment(layout).folder.mkdir()
            progress.start("Copying", len(base))
            _copy_passages(base, layout)
            vectors = _copied_vectors(base, progress)
            store.write_vectors(staged_segment(layout).vectors, vectors, len(base), manifest.dimension)
            record = index_segment(layout, IngestSettings.of(manifest), _NO_ROWS, progress)
        compacted = replace(next_manifest(manifest, ChangeRecord(kind="compact")), segments=())
        commit(layout, compacted, new=record, deleted=_NO_ROWS, sources=base.sources)
    _remove_old_versions(layout, keep)


def reembed(
    base: Snapshot,
    output: Path,
    *,
    encoder: TextEncoder,
    engine: Engine | None,
    keep: int | None,
    keep_named: Collection[str],
    resume: bool,
    progress: Progress,
) -> None:
    """Embed all passages with another encoder, as one segment; see `KnowledgeBase.reembed`."""
    if not len(base):
        raise KnowledgeBaseError(f"The knowledge base at {base.path} is empty: there is nothing to embed.")
    check_output(output, overwrite=True)
    settings = IngestSettings.of(base.manifest, engine=engine)
    with staging(output, resume=resume) as layout:
        plan = {"encoder": encoder.fingerprint, "reembeds": base.manifest.checksum}
        _check_plan(layout, plan, resume=resume)
        segment, copied = staged_segment(layout), layout.work / "copied"
        if not copied.exists():
            segment.folder.mkdir(exist_ok=True)
            for path in (segment.passages, segment.hashes):
                path.unlink(missing_ok=True)  # of a run that was interrupted here
            _copy_passages(base, layout)
            store.write_text(copied, "")  # marks the end of this step, for resume
        record = embed_segment(layout, encoder, settings, _NO_ROWS, progress)
        manifest = first_manifest(encoder, settings, ChangeRecord(kind="reembed", added=len(base)))
        commit(layout, manifest, new=record, deleted=_NO_ROWS, sources=base.sources)
        if keep is not None:
            _remove_old_versions(layout, keep, keep_named)


def swap(layout: Layout, version: str) -> None:
    """Make another version the current one; see `KnowledgeBase.swap`."""
    names = layout.version_names()
    if version not in names:
        raise KnowledgeBaseError(
            f"There is no version '{version}' in {layout.root}; there are {', '.join(names) or 'none'}."
        )
    manifest = Manifest.read(layout.version(version).manifest)
    Snapshot(layout, version, manifest)  # raises if a file is missing or damaged
    layout.write_current(Pointer(version, manifest.checksum[:16]))


# --- Shared with knowledge bases in a database ---


@dataclass(frozen=True, slots=True)
class SourceScan:
    """Files compared with the sources of a knowledge base.

    Attributes:
        records: The records of all files that could be read, by key.
        changed: The files that are new, or whose content has changed.
        known: The sources of the knowledge base, by key.
        skipped: One sentence for each file that could not be read.
    """

    records: Sources
    changed: list[SourceFile]
    known: Sources
    skipped: list[str]

    @property
    def unchanged(self) -> int:
        """Number of files that the knowledge base already has with this content."""
        return len(self.records) - len(self.changed)

    def read(self, failed: Collection[str]) -> Sources:
        """The records of the changed files, but for the sources that failed."""
        return {file.key: self.records[file.key] for file in self.changed if file.source not in failed}

    def replaced(self, failed: Collection[str] = ()) -> set[str]:
        """The sources of the knowledge base that changed files replace, but for files that failed."""
        return {self.known[key].source for key in self.read(failed) if key in self.known}


def scan_sources(
    files: Sequence[SourceFile], known: Sources, *, strict: bool, progress: Progress
) -> SourceScan:
    """Hash the content of files to find those that are new or have changed.

    Args:
        files: The files.
        known: The sources of the knowledge base.
        strict: Whether a file that cannot be read is an error.
        progress: Advances by every file.

    Raises:
        SourceError: With ``strict``, a file cannot be read.
    """
    records: Sources = {}
    changed: list[SourceFile] = []
    skipped: list[str] = []
    progress.start("Looking for changes", len(files))
    for file in files:
        try:
            record = records[file.key] = fingerprint(file)
        except SourceError as error:
            if strict:
                raise
            skipped.append(str(error))
        else:
            if file.key not in known or known[file.key].sha256 != record.sha256:
                changed.append(file)
        progress.advance(1)
    return SourceScan(records, changed, known, skipped)


def report_skipped(skipped: Sequence[str], *, other_sources: bool) -> None:
    """Report sources that could not be read where no new version's manifest records them.

    Args:
        skipped: One sentence for each of them.
        other_sources: Whether other sources could be read: then the user is warned, else it is an error.

    Raises:
        SourceError: No source could be read.
    """
    if skipped and not other_sources:
        raise SourceError(" ".join(skipped))
    for sentence in skipped:
        warnings.warn(f"skipped: {sentence}", SourceWarning, stacklevel=4)


def no_text(skipped: Sequence[str]) -> SourceError:
    """The error for a build from sources without text."""
    return SourceError(" ".join(skipped) or "The sources hold no text: give files with something in them.")


def unknown_id(name: str, place: Path | str) -> KnowledgeBaseError:
    """The error for the deletion of something that does not exist."""
    return KnowledgeBaseError(
        f"There is no passage or document '{name}' in {place}: look at the ids in 'ragweave ask --json'."
    )


def id_taken(name: str, source: str, place: Path | str) -> SourceError:
    """The error for a document with the id of another."""
    return SourceError(
        f"A document with the id '{name}' is in the knowledge base already, from {source}: delete that first "
        f"('ragweave delete {place} --id {name}'), or give the folder that holds both files as the source."
    )


def first_manifest(encoder: TextEncoder, settings: IngestSettings, change: ChangeRecord) -> Manifest:
    """The manifest of a new knowledge base, without its segments and files."""
    return Manifest(
        ragweave_version=__version__,
        created=_now(),
        change=change,
        encoder=EncoderRecord(
            name=encoder.name,
            fingerprint=encoder.fingerprint,
            pooling=encoder.pooling,
            normalize=encoder.normalize,
            max_length=encoder.max_length,
        ),
        dimension=encoder.dimension,
        index=IndexRecord(kind=settings.index_kind, metric=METRIC, parameters=settings.index_parameters),
        chunking=settings.chunking,
        segments=(),
        files={},
        language=settings.language,
    )


def next_manifest(manifest: Manifest, change: ChangeRecord) -> Manifest:
    """The manifest after another change, which still has the segments and files of the one before."""
    return replace(
        manifest,
        ragweave_version=__version__,
        created=_now(),
        change=change,
        format_version=FORMAT_VERSION,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# --- Parts of the changes above ---


def _commit(
    base: Snapshot,
    change: ChangeRecord,
    *,
    new: SegmentRecord | None,
    deleted: NDArray[np.int64],
    sources: Sources,
) -> None:
    """Commit a version with the segments of another, less the deleted rows, and perhaps a new segment."""
    manifest = replace(next_manifest(base.manifest, change), segments=base.records_without(deleted))
    commit(Layout(base.path), manifest, new=new, deleted=deleted, sources=sources)


def _check_ids(base: Snapshot, built: StagedSegment, replaced: NDArray[np.int64]) -> None:
    """Refuse new documents with ids that other documents have."""
    if built.record is None:
        return
    table = store.PassageTable(staged_segment(Layout(base.path)).passages)
    ids = table.distinct("document_id", without=built.deleted.tolist())
    if taken := base.documents_among(ids, without=replaced):
        raise id_taken(*taken, base.path)


def _copy_passages(base: Snapshot, layout: Layout) -> None:
    """Stage all passages that are not deleted, and their hashes, as one segment without vectors."""
    segment = staged_segment(layout)
    store.write_passages(segment.passages, (part.table.take(rows) for part, rows in base.live_shards()))
    store.write_array(segment.hashes, np.concatenate(list(base.hashes_without(_NO_ROWS))))


def _copied_vectors(base: Snapshot, progress: Progress) -> Iterator[NDArray[np.float32]]:
    for part, rows in base.live_shards():
        yield part.vectors[rows]
        progress.advance(len(rows))


def _remove_old_versions(layout: Layout, keep: int, named: Collection[str] = ()) -> None:
    """Remove all versions but the current one, the named ones, and the ``keep`` newest others."""
    kept = {layout.read_current().version, *named}
    older = [name for name in layout.version_names() if name not in kept]
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
