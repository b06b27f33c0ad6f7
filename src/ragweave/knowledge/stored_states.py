"""Keys and values of passages that `ragweave warm` stored beside the segments: lists them, and deletes stale ones.

They are a cache in separate files: no version names them, and deleting them costs only time.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ragweave.knowledge.layout import Layout
from ragweave.knowledge.snapshot import Snapshot

_ABANDONED = 3600  # a file that is being written for this many seconds belongs to a process that was killed


def stored_files(layout: Layout) -> list[Path]:
    """The files of passages, of all generators."""
    return [path for path in layout.states.glob("*/*.safetensors") if not path.name.startswith(".")]


def drop_stale(layout: Layout) -> int:
    """Delete and count the files of passages that the current version lacks, and leftovers of killed processes."""
    stored = stored_files(layout)
    dropped = 0
    if stored:
        snapshot = Snapshot.open(layout.root)
        live = np.concatenate([np.zeros(0, np.uint64), *(hashes for hashes, _ in snapshot.live_hashes())])
        stale = ~np.isin(np.array([_passage_of(path) for path in stored], np.uint64), live)
        for number in np.flatnonzero(stale).tolist():
            dropped += _unlink(stored[number])
    for path in layout.states.glob("*/.*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED:
                _unlink(path)
    return dropped


def drop_others(layout: Layout, generator: str) -> int:
    """Delete the files of all generators but one, named by its fingerprint; returns how many passages they held."""
    return sum(_unlink(path) for path in stored_files(layout) if path.parent.name != generator)


def _passage_of(path: Path) -> int:
    """The hash of a file's passage; 0, which no passage has, for a damaged file."""
    try:
        with safe_open(path, framework="np") as file:
            return int((file.metadata() or {})["passage"], 16) & (2**64 - 1)
    except (OSError, SafetensorError, KeyError, ValueError):
        return 0


def _unlink(path: Path) -> bool:
    # Readers that have mapped the file keep it. A file that cannot be deleted now is dropped next time.
    with suppress(OSError):
        path.unlink()
        return True
    return False
