"""Giving a knowledge base its next version: prepared beside the others, then put in force in one step.

A crash at any byte leaves what was in force. What a killed writer leaves is in a folder that the next one empties.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragweave.knowledge import store
from ragweave.knowledge.layout import Layout, Pointer, SegmentLayout, VersionLayout
from ragweave.knowledge.manifest import FileRecord, Manifest, SegmentRecord
from ragweave.knowledge.source_records import Sources, to_json


def prepared_segment(layout: Layout) -> SegmentLayout:
    """Where the segment of the next version is prepared."""
    return SegmentLayout(layout.work / "segment")


def put_in_force(
    layout: Layout,
    manifest: Manifest,
    *,
    new: SegmentRecord | None,
    deleted: NDArray[np.int64],
    sources: Sources,
) -> None:
    """Write the next version and point to it.

    Args:
        layout: The knowledge base, locked.
        manifest: What the version holds, without the new segment and the version's own files.
        new: The segment that was prepared, if any; its name is given here.
        deleted: Rows that are no longer there, rising.
        sources: What it was made from.

    Raises:
        OSError: The disk is full or cannot be written; nothing is left behind.
    """
    name = layout.next_version()
    version, segment = VersionLayout(layout.work / "version"), prepared_segment(layout)
    shutil.rmtree(version.folder, ignore_errors=True)
    version.folder.mkdir()
    store.write_array(version.deleted, deleted)
    store.write_text(version.sources, to_json(sources))
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
        if new is not None:
            store.sync_folder(segment.folder)
            segment.folder.rename(layout.segment(name).folder)
            store.sync_folder(layout.segments)
        version.folder.rename(layout.version(name).folder)
        store.sync_folder(layout.versions)
        layout.write_current(Pointer(name, manifest.checksum[:16]))
    except BaseException:
        # The pointer may have been replaced before the failure; only what it does not name may go.
        if not (layout.current.exists() and layout.current.read_bytes().startswith(name.encode())):
            shutil.rmtree(layout.version(name).folder, ignore_errors=True)
            shutil.rmtree(layout.segment(name).folder, ignore_errors=True)
        raise


def remove_versions(layout: Layout, names: Sequence[str]) -> None:
    """Delete versions, and the segments that no other version has.

    Args:
        layout: The knowledge base, locked.
        names: The versions; not the one in force.
    """
    # Versions go first: one without all of its segments must never be seen.
    for name in names:
        _remove(layout, layout.version(name).folder)
    store.sync_folder(layout.versions)
    remove_orphans(layout)


def remove_orphans(layout: Layout) -> None:
    """Delete segments that no version has, as a killed writer leaves them."""
    used: set[str] = set()
    for name in layout.version_names():
        used |= {segment.name for segment in Manifest.read(layout.version(name).manifest).segments}
    for folder in layout.segments.glob("*"):
        if folder.name not in used:
            _remove(layout, folder)


def _remove(layout: Layout, folder: Path) -> None:
    """Delete a folder so that it is never seen half empty."""
    away = layout.work / "removed"
    shutil.rmtree(away, ignore_errors=True)
    layout.work.mkdir(exist_ok=True)
    folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)
