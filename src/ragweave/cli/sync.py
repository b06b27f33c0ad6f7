"""``ragweave sync``."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

import ragweave
from ragweave.cli import options, takes_options
from ragweave.cli.console import note, print_change, print_json, print_text, source_warnings, stage_bars, warn
from ragweave.errors import ConfigurationError, RagweaveError, SourceWarning
from ragweave.types import SourceChanges


@takes_options
def sync(
    kb: options.KnowledgeBaseArgument,
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE", help="Files, folders and patterns.")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be read and removed, and change nothing.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Synchronize after every change of the sources, until Ctrl+C.")
    ] = False,
    keep: Annotated[
        int | None, typer.Option(min=0, help="Number of older versions to keep (default: all).")
    ] = None,
    model: options.SameEncoder = None,
    reading: options.ReadOptions,
    device: options.Device = None,
    verbose: options.Verbose = False,
    as_json: options.AsJson = False,
) -> None:
    """Update a knowledge base to match its sources.

    Adds new files, replaces changed ones, and removes what was read from files below the sources that no longer
    exist, all in one new version. Passages from other sources stay. If many rows are then deleted, it also compacts
    the knowledge base. Older versions stay unless --keep is given.

    Examples:
      ragweave sync kb notes/
      ragweave sync kb notes/ --dry-run
      ragweave sync kb notes/ minutes/ --watch --keep 10
    """
    from ragweave.knowledge.ingest.loaders.loader import find_sources

    if Path("-") in sources:
        raise ConfigurationError("Standard input cannot be synchronized. Use 'ragweave add'.")
    # Wrong arguments fail before the model is loaded.
    base = ragweave.KnowledgeBase.open(kb)
    settings = reading.settings()
    if dry_run:
        with source_warnings():
            changes = base.compare(sources, reading=settings)
        _print_changes(changes, as_json=as_json)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SourceWarning)  # shown below, when the sources are read
        files = find_sources(sources, follow_links=reading.follow_links, allow_empty=True)
    # Loaded once, at the first new or changed source.
    encoder = cache(partial(options.load_encoder, model, base, device=device))

    def synchronize() -> ragweave.KnowledgeBase:
        with stage_bars(hidden=watch) as progress, source_warnings():
            return base.add(
                sources,
                encoder=encoder,
                strict=reading.strict,
                reading=settings,
                remove_missing=True,
                progress=progress,
            )

    if not watch:
        previous, base = base.version, synchronize()
        print_change(base, as_json=as_json, previous=previous, files=files, verbose=verbose)
        _compacted(base, keep)
        return
    with _stop_on_interrupt() as stop:
        for _ in _changes(sources, kb, stop):
            previous = base.version
            try:
                base = synchronize()
                if base.version != previous:
                    print_change(base, as_json=as_json, previous=previous)
                    base = _compacted(base, keep)
            except RagweaveError as error:  # a file that is still being written, or another writer
                warn(str(error))
    note(f"Stopped at version {base.version}.")


def _compacted(base: ragweave.KnowledgeBase, keep: int | None) -> ragweave.KnowledgeBase:
    """Compact the knowledge base if many of its rows are deleted, and keep ``keep`` older versions."""
    if base.manifest.needs_compaction:
        base = base.compact(keep=None)
        note(f"Compacted: version {base.version} has no deleted rows.")
    if keep is not None:
        base.prune(keep=keep)
    return base


def _print_changes(changes: SourceChanges, *, as_json: bool) -> None:
    """Print what a synchronization would do."""
    content = asdict(changes)
    if as_json:
        print_json(content)
        return
    for kind, names in content.items():
        for name in names:
            print_text(f"{kind}: {name}")
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in content.items())
    print_text(f"{counts}. Nothing was changed.")


def _changes(sources: Sequence[Path], kb: str, stop: Event) -> Iterator[None]:
    """Yield at once, and after each burst of changes below the sources, until stopped."""
    import watchfiles

    folders = {_nearest_folder(source) for source in sources}
    own = os.path.realpath(kb)  # may lie below a source, and changes with every version
    started = False
    for changes in watchfiles.watch(
        *folders,
        watch_filter=lambda _, path: not Path(path).is_relative_to(own),
        stop_event=stop,
        rust_timeout=500,
        yield_on_timeout=True,
    ):
        # The first round ends without changes. The watcher is running by then, so no change is missed.
        if changes or not started:
            started = True
            yield


def _nearest_folder(source: Path) -> Path:
    """The nearest existing folder of a source: editors replace files, and a pattern may match new ones."""
    path = Path(os.path.realpath(source))
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


@contextmanager
def _stop_on_interrupt() -> Iterator[Event]:
    """Set an event at Ctrl+C, so that a change in progress is committed; a second Ctrl+C interrupts it."""
    stop = Event()

    def handle(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
