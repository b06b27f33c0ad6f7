"""``ragweave add``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

import ragweave
from ragweave.cli import options, takes_options
from ragweave.cli.console import note_compaction, print_change, source_warnings, stage_bars


@takes_options
def add(
    kb: options.KnowledgeBaseArgument,
    sources: options.Sources,
    *,
    model: options.SameEncoder = None,
    reading: options.SourceOptions,
    engine: options.EngineKind = "local",
    workers: options.Workers = 2,
    ray_address: options.RayAddress = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an interrupted addition of the same sources.")
    ] = False,
    device: options.Device = None,
    verbose: options.Verbose = False,
    as_json: options.AsJson = False,
) -> None:
    """Add documents to a knowledge base.

    Passages of a source that has changed are replaced; a source that has not changed is skipped. The knowledge base
    gets a new version without interrupting its readers.

    Examples:
      ragweave add kb notes/
      ragweave add kb minutes/2026-11.md --strict
      git log | ragweave add kb - --stdin-name history
    """
    # Wrong arguments fail before the model is loaded.
    base = ragweave.KnowledgeBase.open(kb)
    settings = reading.settings()
    with stage_bars() as progress, source_warnings(), reading.files(sources) as files:
        updated = base.add(
            files,
            encoder=partial(options.load_encoder, model, base, device=device),
            strict=reading.strict,
            reading=settings,
            engine=options.load_engine(engine, workers, ray_address),
            resume=resume,
            progress=progress,
        )
    print_change(updated, as_json=as_json, previous=base.version, files=files, verbose=verbose)
    note_compaction(updated)
