"""Where ragweave keeps what it has computed once and for all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """``$RAGWEAVE_CACHE``, or else ``ragweave`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    own = os.environ.get("RAGWEAVE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ragweave"


def created_once(folder: Path, create: Callable[[Path], None]) -> Path:
    """A folder that is made the first time it is needed, and appears whole or not at all.

    Args:
        folder: The folder wanted.
        create: Fills an empty folder given to it.

    Returns:
        The folder.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        create(partial)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, and made the same
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
