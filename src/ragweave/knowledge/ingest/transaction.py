"""Transactions on a knowledge base in a folder: one writer at a time, and all of a change or nothing.

A change is staged in a folder that no reader opens, and takes effect when one small file, the pointer CURRENT, is
replaced. A crash at any byte leaves the previous version; the next writer removes what the crash left behind.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ragweave.errors import KnowledgeBaseError, too_many_files
from ragweave.knowledge import store
from ragweave.knowledge.layout import Layout, Pointer, SegmentLayout, VersionLayout, sources_json
from ragweave.knowledge.manifest import FileRecord, Manifest, SegmentRecord
from ragweave.knowledge.snapshot import NO_COPIES
from ragweave.types import Passage, Sources


@contextmanager
def transaction(path: Path, *, resume: bool = False, resumable: bool = False) -> Iterator[Layout]:
    """Lock a knowledge base for a change, and clean up after it.

    ``resume`` keeps the files that an interrupted change staged; ``resumable`` those of this change if it fails.
    """
    layout = Layout(path)
    with _explain_os_errors(path), _locked(layout, resume=resume, resumable=resumable):
        yield layout


@contextmanager
def staging(output: Path, *, resume: bool) -> Iterator[Layout]:
    """Stage a new version of a knowledge base, or a new knowledge base, which appears when it is complete.

    Yields where to stage and commit it: the knowledge base, or a hidden folder that is then renamed. ``resume``
    continues with the files that an interrupted run staged.
    """
    output = output.resolve()  # a link to a folder stays a link; its target is replaced
    layout = Layout(output)
    with _explain_os_errors(output):
        if layout.is_knowledge_base():
            with _locked(layout, resume=resume, resumable=True):
                yield layout
            return
        with _staging_folder(output, resume=resume) as staged:
            yield staged
            shutil.rmtree(staged.work)
            staged.writer.unlink()
            # The knowledge base is complete and synced, so a single rename publishes it.
            staged.root.rename(output)
            store.sync_folder(output.parent)


class _DiscardError(Exception):
    """Leaves `staging` without publishing anything."""


def discard_staged(output: Path) -> None:
    """Remove the files that an interrupted run staged for an output."""
    # Without resume, staging starts by removing what is there; the error keeps it from publishing an empty folder.
    with suppress(_DiscardError), staging(output, resume=False):
        raise _DiscardError


def staged_segment(layout: Layout) -> SegmentLayout:
    """Where the segment of the next version is staged."""
    return SegmentLayout(layout.work / "segment")


def merged_segment(layout: Layout) -> SegmentLayout:
    """Where segments are merged into the one that replaces them in the next version."""
    return SegmentLayout(layout.work / "merged")


def commit(
    layout: Layout,
    manifest: Manifest,
    *,
    new: SegmentRecord | None,
    deleted: NDArray[np.int64],
    sources: Sources,
    copies: Iterable[list[Passage]] = (),
    copy_rows: NDArray[np.int64] = NO_COPIES,
    staged: SegmentLayout | None = None,
) -> None:
    """Write the next version and make it the current one; an `OSError` leaves nothing behind.

    The manifest lacks the version's files, and the ``new`` segment, which gets its name here; by default it is in
    `staged_segment`. The ``deleted`` rows are sorted. `VersionLayout` describes the copies and their rows, (M, 2).
    """
    name = layout.next_version()
    version, segment = VersionLayout(layout.work / "version"), staged or staged_segment(layout)
    shutil.rmtree(version.folder, ignore_errors=True)
    version.folder.mkdir()
    store.write_array(version.deleted, deleted)
    store.write_text(version.sources, sources_json(sources))
    store.write_passages(version.copies, copies)
    store.write_array(version.copy_rows, copy_rows)
    manifest = replace(
        manifest,
        segments=(*manifest.segments, *([] if new is None else [replace(new, name=name)])),
        files={path.name: FileRecord.of(path) for path in version.data},
    )
    store.write_text(version.manifest, manifest.to_json())
    store.sync_folder(version.folder)
    layout.versions.mkdir(exist_ok=True)
    layout.segments.mkdir(exist_ok=True)
    try:
        # Bottom up: the segment, the version that names it, the pointer that names the version. Whatever a reader or
        # a crash sees, everything that is named exists. Each folder is synced before the next rename, as a loss of
        # power may otherwise keep the later rename and lose the earlier one.
        if new is not None:
            store.sync_folder(segment.folder)
            segment.folder.rename(layout.segment(name).folder)
            store.sync_folder(layout.segments)
        version.folder.rename(layout.version(name).folder)
        store.sync_folder(layout.versions)
        layout.write_current(Pointer(name, manifest.checksum[:16]))
    except BaseException:
        # The failure may have come after the pointer was replaced. Then the version is current and must stay.
        if not (layout.current.exists() and layout.current.read_bytes().startswith(name.encode())):
            shutil.rmtree(layout.version(name).folder, ignore_errors=True)
            shutil.rmtree(layout.segment(name).folder, ignore_errors=True)
        raise


def remove_versions(layout: Layout, names: Sequence[str]) -> None:
    """Delete versions, not the current one, and the segments that no other version uses."""
    # Versions are deleted before segments, so that no version ever lacks one of its segments.
    for name in names:
        _remove(layout, layout.version(name).folder)
    store.sync_folder(layout.versions)
    _remove_orphans(layout)


def _remove_orphans(layout: Layout) -> None:
    used: set[str] = set()
    for name in layout.version_names():
        used |= {segment.name for segment in Manifest.read(layout.version(name).manifest).segments}
    for name in store.names_in(layout.segments):
        if name not in used:
            _remove(layout, layout.segment(name).folder)


def _remove(layout: Layout, folder: Path) -> None:
    """Delete a folder. It is moved away first, so that no reader sees a part of it."""
    removed = layout.work / "removed"
    shutil.rmtree(removed, ignore_errors=True)
    layout.work.mkdir(exist_ok=True)
    folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


# --- Locking and cleaning up ---


@contextmanager
def _locked(layout: Layout, *, resume: bool, resumable: bool) -> Iterator[None]:
    """Hold the lock; afterwards keep what was staged only if a failed change can be resumed from it."""
    with _writer_lock(layout):
        _vacuum(layout, resume=resume)
        layout.work.mkdir(exist_ok=True)
        keep = False
        try:
            yield
        except BaseException as error:
            # Of all staged files, only vectors take long to compute again.
            keep = resumable and store.vectors_written(staged_segment(layout).vectors) > 0
            if keep:
                error.add_note("run the command again with --resume to continue where it stopped.")
            raise
        finally:
            if not keep:
                shutil.rmtree(layout.work, ignore_errors=True)


@contextmanager
def _writer_lock(layout: Layout) -> Iterator[None]:
    """Hold the lock of the one writer. The system releases it when the process ends, however that happens."""
    lock = FileLock(layout.lock, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise KnowledgeBaseError(
            f"Another process is changing {layout.root} ({_owner(layout)}): try again when it has finished."
        ) from error
    except OSError as error:
        raise too_many_files(error) or KnowledgeBaseError(
            f"{layout.root} cannot be written ({error.strerror or error}): check its permissions."
        ) from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        owner = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
        layout.writer.write_text(json.dumps(owner), encoding="utf-8")
        yield
    finally:
        try:
            layout.writer.unlink(missing_ok=True)
        finally:
            lock.release()


def _owner(layout: Layout) -> str:
    try:
        owner = json.loads(layout.writer.read_bytes())
        return f"process {owner['process']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown process"


def _vacuum(layout: Layout, *, resume: bool) -> None:
    """Remove what killed writers left behind."""
    if not resume:
        shutil.rmtree(layout.work, ignore_errors=True)
    for temporary in layout.root.glob(".CURRENT.*"):
        temporary.unlink(missing_ok=True)
    if layout.current.exists():
        # With a damaged manifest it is unknown which segments are in use. All stay: they may help to repair it.
        with suppress(KnowledgeBaseError):
            _remove_orphans(layout)


@contextmanager
def _staging_folder(output: Path, *, resume: bool) -> Iterator[Layout]:
    """Make a hidden folder beside the output, and remove it unless the work in it can be resumed."""
    missing = [folder for folder in output.parents if not folder.exists()]
    layout = Layout(output.parent / f".{output.name}.building")
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        try:
            with _locked(layout, resume=resume, resumable=True):
                yield layout
        finally:
            # It stays if there is work to resume, or if another process is the writer.
            if not layout.work.exists() and not layout.writer.exists():
                shutil.rmtree(layout.root, ignore_errors=True)
    finally:
        for parent in missing:
            # Only a failed build leaves the parents that it made empty.
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


@contextmanager
def _explain_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise too_many_files(error) or KnowledgeBaseError(
            f"The knowledge base could not be written to {path} ({error.strerror or error}): free some "
            "space, check the folder's permissions, or choose another output. Nothing was changed there."
        ) from error
