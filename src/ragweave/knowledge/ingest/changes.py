"""What can be done to a knowledge base: build, add, delete, compact, put another version in force.

Every change holds the writer's lock, prepares a version beside the others and puts it in force in one step.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import KnowledgeBaseError, SourceError, SourceWarning
from ragweave.knowledge import store
from ragweave.knowledge.ingest.builder import Built, Settings, build_segment, check_output, finished
from ragweave.knowledge.ingest.commit import prepared_segment, put_in_force, remove_versions
from ragweave.knowledge.ingest.duplicates import SeenHashes
from ragweave.knowledge.ingest.engines import Engine
from ragweave.knowledge.ingest.transaction import making
from ragweave.knowledge.layout import Layout, Pointer, SegmentLayout
from ragweave.knowledge.manifest import (
    FORMAT_VERSION,
    ChangeRecord,
    EncoderRecord,
    IndexRecord,
    Manifest,
    SegmentRecord,
)
from ragweave.knowledge.snapshot import Snapshot
from ragweave.knowledge.source_records import Sources, fingerprint, named_by

if TYPE_CHECKING:
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.progress import Progress
    from ragweave.knowledge.source_records import SourceFile

METRIC = "inner product"

FLAT_ADDITIONS = 20_000
"""Additions of up to so many passages get no index of their own until they are compacted: too few to train one."""


def build(
    files: Sequence[SourceFile],
    output: Path,
    *,
    encoder: TextEncoder,
    settings: Settings,
    overwrite: bool,
    resume: bool,
    progress: Progress,
) -> None:
    """Build a knowledge base, or the next version of one; see `KnowledgeBase.build`."""
    check_output(Layout(output), overwrite=overwrite)
    with making(output, resume=resume) as layout:
        _build(layout, files, encoder, settings, resume=resume, progress=progress)


def add(
    base: Snapshot,
    files: Sequence[SourceFile],
    *,
    encoder: TextEncoder,
    strict: bool,
    engine: Engine,
    resume: bool,
    progress: Progress,
) -> None:
    """Add what is new in sources, in place of what was read from them before; see `KnowledgeBase.add`."""
    layout, manifest = Layout(base.path), base.manifest
    settings = Settings(
        chunking=manifest.chunking,
        kind=manifest.index.kind,
        parameters=manifest.index.parameters,
        strict=strict,
        language=manifest.language,
        engine=engine,
        flat_up_to=FLAT_ADDITIONS,
    )
    found, unreadable = fingerprints(files, strict=strict, progress=progress)
    old = base.sources
    changed = changed_among(files, found, old)
    if not changed:
        nothing_done(unreadable, of_many=bool(found))
        return
    _plan(
        layout,
        encoder,
        settings,
        {file.key: found[file.key].sha256 for file in changed},
        resume=resume,
    )
    before = {old[file.key].source: file for file in changed if file.key in old}
    seen = SeenHashes()
    replaced = base.rows_with("source", before)
    for hashes in base.hashes_without(replaced):
        seen.add(hashes)
    built = build_segment(
        layout, changed, encoder=encoder, settings=settings, seen=seen, resume=resume, progress=progress
    )
    failed = set(built.reading.failed)
    kept = {source for source, file in before.items() if file.source in failed}
    replaced = base.rows_with("source", set(before) - kept)
    if built.record is None and not len(replaced):
        nothing_done([*unreadable, *built.reading.skipped], of_many=len(found) > len(changed))
        return
    _refuse_taken(base, layout, built, replaced)
    # Rows of the new segment come after all others.
    deleted = np.concatenate([np.union1d(base.deleted, replaced), built.deleted + manifest.rows])
    sources = old | {file.key: found[file.key] for file in changed if file.source not in failed}
    change = ChangeRecord(
        kind="add",
        added=0 if built.record is None else built.record.passages,
        deleted=len(replaced),
        duplicates=built.reading.duplicates,
        unchanged=len(found) - len(changed),
        skipped=(*unreadable, *built.reading.skipped),
    )
    _commit(base, change, new=built.record, deleted=deleted, sources=sources)


def changed_among(files: Sequence[SourceFile], found: Sources, old: Sources) -> list[SourceFile]:
    """The files that were hashed, and are not in the knowledge base with this content."""
    return [
        file
        for file in files
        if file.key in found and (file.key not in old or old[file.key].sha256 != found[file.key].sha256)
    ]


def nothing_called(name: str, place: Path | str) -> KnowledgeBaseError:
    """What is raised where there is nothing of a name to delete."""
    return KnowledgeBaseError(
        f"There is no passage or document '{name}' in {place}: look at the ids in 'ragweave ask --json'."
    )


def id_taken(name: str, source: str, place: Path | str) -> SourceError:
    """What is raised where a document has the id of another one."""
    return SourceError(
        f"A document with the id '{name}' is in the knowledge base already, from {source}: delete that first "
        f"('ragweave delete {place} --id {name}'), or give the folder that holds both files as the source."
    )


def nothing_done(skipped: list[str], *, of_many: bool) -> None:
    """Tell of sources that could not be read where there is no new version whose manifest could say so."""
    if skipped and not of_many:
        raise SourceError(" ".join(skipped))
    for sentence in skipped:
        warnings.warn(f"skipped: {sentence}", SourceWarning, stacklevel=4)


def delete(base: Snapshot, *, ids: Sequence[str], sources: Sequence[str]) -> None:
    """Delete passages, documents and sources; see `KnowledgeBase.delete`."""
    rows: set[int] = set()
    for name in ids:
        own = base.row_of(name)
        if not own:
            raise nothing_called(name, base.path)
        rows.update(own)
    chosen = named_by(sources, base.sources, base.path)
    rows.update(base.rows_with("source", chosen).tolist())
    left = {key: record for key, record in base.sources.items() if record.source not in chosen}
    new = np.array(sorted(rows), dtype=np.int64)
    deleted = np.union1d(base.deleted, new)
    change = ChangeRecord(kind="delete", deleted=len(new))
    _commit(base, change, new=None, deleted=deleted, sources=left)


def compact(base: Snapshot, *, keep: int, progress: Progress) -> None:
    """Write what is there as one segment, and forget old versions; see `KnowledgeBase.compact`."""
    layout, manifest = Layout(base.path), base.manifest
    settings = Settings(
        chunking=manifest.chunking,
        kind=manifest.index.kind,
        parameters=manifest.index.parameters,
        strict=True,
        language=manifest.language,
    )
    nothing = np.zeros(0, np.int64)
    if len(manifest.segments) > 1 or len(base.deleted):
        segment = prepared_segment(layout)
        record = None
        if len(base):
            segment.folder.mkdir()
            progress.start("Copying", len(base))
            copy_passages(base, segment)
            vectors = _advancing((own.vectors[rows] for own, rows in base.live_shards()), progress)
            store.write_vectors(segment.vectors, vectors, len(base), manifest.dimension)
            record = finished(segment, settings, nothing, progress, layout.work / "postings")
        put_in_force(
            layout,
            replace(renewed(manifest, ChangeRecord(kind="compact")), segments=()),
            new=record,
            deleted=nothing,
            sources=base.sources,
        )
    keep_versions(layout, keep)


def keep_versions(layout: Layout, keep: int, named: Collection[str] = ()) -> None:
    """Forget all versions but that in force, those that are named, and so many others, the newest."""
    kept = {layout.read_current().version, *named}
    older = [name for name in layout.version_names() if name not in kept]
    remove_versions(layout, older[: max(len(older) - keep, 0)])


def copy_passages(base: Snapshot, segment: SegmentLayout) -> None:
    """Write all passages that are there into one segment, with their hashes; without vectors."""
    store.write_passages(segment.passages, (own.table.take(rows) for own, rows in base.live_shards()))
    store.write_array(segment.hashes, np.concatenate(list(base.hashes_without(np.zeros(0, np.int64)))))


def swap(layout: Layout, version: str) -> None:
    """Put another version in force; see `KnowledgeBase.swap`."""
    names = layout.version_names()
    if version not in names:
        raise KnowledgeBaseError(
            f"There is no version '{version}' in {layout.root}; there are {', '.join(names) or 'none'}."
        )
    manifest = Manifest.read(layout.version(version).manifest)
    Snapshot(layout, version, manifest)  # fails where a file is missing or damaged
    layout.write_current(Pointer(version, manifest.checksum[:16]))


def _build(
    layout: Layout,
    files: Sequence[SourceFile],
    encoder: TextEncoder,
    settings: Settings,
    *,
    resume: bool,
    progress: Progress,
) -> None:
    """Write a version of these files alone."""
    found, unreadable = fingerprints(files, strict=settings.strict, progress=progress)
    _plan(layout, encoder, settings, {key: record.sha256 for key, record in found.items()}, resume=resume)
    readable = [file for file in files if file.key in found]
    built = build_segment(
        layout,
        readable,
        encoder=encoder,
        settings=settings,
        seen=SeenHashes(),
        resume=resume,
        progress=progress,
    )
    skipped = (*unreadable, *built.reading.skipped)
    if built.record is None:
        raise SourceError(" ".join(skipped) or "The sources hold no text: give files with something in them.")
    failed = set(built.reading.failed)
    change = ChangeRecord(
        kind="build", added=built.record.passages, duplicates=built.reading.duplicates, skipped=skipped
    )
    manifest = first_manifest(encoder, settings, change)
    sources = {file.key: found[file.key] for file in readable if file.source not in failed}
    put_in_force(layout, manifest, new=built.record, deleted=built.deleted, sources=sources)


def first_manifest(encoder: TextEncoder, settings: Settings, change: ChangeRecord) -> Manifest:
    """What is known of a knowledge base that is being built, but for its segments and files."""
    from ragweave import __version__

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
        index=IndexRecord(kind=settings.kind, metric=METRIC, parameters=settings.parameters),
        chunking=settings.chunking,
        segments=(),
        files={},
        language=settings.language,
    )


def _commit(
    base: Snapshot,
    change: ChangeRecord,
    *,
    new: SegmentRecord | None,
    deleted: NDArray[np.int64],
    sources: Sources,
) -> None:
    """Put a version in force that has the segments of another, less what was deleted, and perhaps one more.

    Args:
        base: The other version.
        change: What was done.
        new: The new segment.
        deleted: Rows that are no longer there, of the old segments and the new one.
        sources: What it was made from.
    """
    segments = base.records_without(deleted)
    manifest = replace(renewed(base.manifest, change), segments=segments)
    put_in_force(Layout(base.path), manifest, new=new, deleted=deleted, sources=sources)


def _advancing(shards: Iterable[NDArray[np.float32]], progress: Progress) -> Iterator[NDArray[np.float32]]:
    for shard in shards:
        yield shard
        progress.advance(len(shard))


def renewed(manifest: Manifest, change: ChangeRecord) -> Manifest:
    """What is known of a knowledge base after another change, but for its segments and files."""
    from ragweave import __version__

    return replace(
        manifest,
        ragweave_version=__version__,
        created=_now(),
        change=change,
        format_version=FORMAT_VERSION,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def fingerprints(
    files: Sequence[SourceFile], *, strict: bool, progress: Progress
) -> tuple[Sources, list[str]]:
    """Hash the content of files; sentences about those that cannot be read."""
    found: Sources = {}
    unreadable: list[str] = []
    progress.start("Looking for changes", len(files))
    for file in files:
        try:
            found[file.key] = fingerprint(file)
        except SourceError as error:
            if strict:
                raise
            unreadable.append(str(error))
        progress.advance(1)
    return found, unreadable


def _refuse_taken(base: Snapshot, layout: Layout, built: Built, replaced: NDArray[np.int64]) -> None:
    """Refuse documents whose ids others have already."""
    if built.record is None:
        return
    table = store.PassageTable(prepared_segment(layout).passages)
    taken = base.documents_among(
        table.distinct("document_id", without=built.deleted.tolist()), without=replaced
    )
    if taken:
        raise id_taken(*taken, base.path)


def _plan(
    layout: Layout, encoder: TextEncoder, settings: Settings, content: dict[str, str], *, resume: bool
) -> None:
    """Note from what and how passages are about to be made; see `check_plan`."""
    plan: dict[str, Any] = {
        "encoder": encoder.fingerprint,
        "chunking": settings.chunking.to_record(),
        "index": settings.kind,
        "language": settings.language,
        "sources": content,
    }
    check_plan(layout, plan, resume=resume)


def check_plan(layout: Layout, plan: dict[str, Any], *, resume: bool) -> None:
    """Note what is about to be done; with ``resume``, check that it is what was begun.

    Raises:
        KnowledgeBaseError: It is something else.
    """
    path = layout.work / "plan.json"
    if not path.exists():
        store.replace_text(path, json.dumps(plan))
    elif not resume or json.loads(path.read_bytes()) != plan:
        raise KnowledgeBaseError(
            f"What was begun in {layout.root} had other sources or settings than these: run the command without "
            "--resume to begin anew."
        )
