"""Doing work on a knowledge base: one writer at a time, and nothing half-written where it fails.

What was prepared stays where it can be gone on with, and only there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge import store
from ragweave.knowledge.ingest.commit import prepared_segment, remove_orphans
from ragweave.knowledge.ingest.lock import writer_lock
from ragweave.knowledge.layout import Layout


@contextmanager
def changing(path: Path, *, resume: bool = False, resumable: bool = False) -> Iterator[Layout]:
    """Hold the lock of a knowledge base and prepare for a change of it.

    Raises:
        KnowledgeBaseError: Another process is changing it, or it cannot be written.
    """
    layout = Layout(path)
    with _sentences(path), _changing(layout, resume=resume, resumable=resumable):
        yield layout


@contextmanager
def making(output: Path, *, resume: bool) -> Iterator[Layout]:
    """Prepare for a new version of the knowledge base at a place, or for its first: that is there when it is whole.

    Args:
        output: Where it is, or will be.
        resume: Whether what was prepared is gone on with.

    Raises:
        KnowledgeBaseError: Another process is changing it, or it cannot be written.
    """
    # A link to a folder stays a link: what it leads to is replaced.
    output = output.resolve()
    target = Layout(output)
    with _sentences(output):
        if target.is_knowledge_base():
            with _changing(target, resume=resume, resumable=True):
                yield target
            return
        with _workshop(output, resume=resume) as workshop:
            yield workshop
            shutil.rmtree(workshop.work)
            workshop.writer.unlink()
            workshop.root.rename(output)
            store.sync_folder(output.parent)


@contextmanager
def _changing(layout: Layout, *, resume: bool, resumable: bool) -> Iterator[None]:
    """Hold the lock; keep what was prepared if it can be gone on with, and nothing else."""
    with writer_lock(layout):
        _tidy(layout, resume=resume)
        layout.work.mkdir(exist_ok=True)
        try:
            yield
        except BaseException as error:
            if not (resumable and _is_worth_keeping(layout, error)):
                shutil.rmtree(layout.work, ignore_errors=True)
            raise
        shutil.rmtree(layout.work, ignore_errors=True)


def _tidy(layout: Layout, *, resume: bool) -> None:
    """Remove what killed writers left."""
    if not resume:
        shutil.rmtree(layout.work, ignore_errors=True)
    for left in layout.root.glob(".CURRENT.*"):
        left.unlink(missing_ok=True)
    if layout.current.exists():
        try:
            remove_orphans(layout)
        except KnowledgeBaseError:
            return  # a version is damaged: nothing may be thrown away that could mend it


def _is_worth_keeping(layout: Layout, error: BaseException) -> bool:
    """Whether vectors are on the disk that took long; a note with the error says so."""
    kept = store.vectors_written(prepared_segment(layout).vectors) > 0
    if kept:
        error.add_note("run the command again with --resume to go on where it stopped.")
    return kept


@contextmanager
def _workshop(output: Path, *, resume: bool) -> Iterator[Layout]:
    """Make a hidden folder beside the output, and remove it unless the work in it can be gone on with."""
    missing = [folder for folder in output.parents if not folder.exists()]
    layout = Layout(output.parent / f".{output.name}.building")
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        kept = False
        try:
            with _changing(layout, resume=resume, resumable=True):
                yield layout
        except BaseException:
            kept = layout.work.exists()
            raise
        finally:
            if not kept:
                _remove_workshop(layout)
    finally:
        for parent in missing:
            # Goes only where nothing was put into it, that is, where building failed.
            if not any(parent.iterdir() if parent.is_dir() else ["gone"]):
                parent.rmdir()


def _remove_workshop(layout: Layout) -> None:
    """Remove the workshop, unless another process is at work in it."""
    if not layout.writer.exists():
        shutil.rmtree(layout.root, ignore_errors=True)


@contextmanager
def _sentences(path: Path) -> Iterator[None]:
    """Turn errors of the file system into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise KnowledgeBaseError(
            f"The knowledge base could not be written to {path} ({error.strerror or error}): free some "
            "space, check the folder's permissions, or choose another output. Nothing was changed there."
        ) from error
