"""``ragweave add``: more documents for a knowledge base, and new versions of those it has."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from ragweave.cli.changes import AsJson, EngineKind, RayAddress, Workers
from ragweave.cli.models import Device
from ragweave.cli.spooling import StdinFormat, StdinName, spooled

HELP = """Add documents to a knowledge base.

A source that has changed since it was read replaces its old passages; one that has not costs nothing. The knowledge
base gets a new version, which who asks it meanwhile does not notice.

Examples:

  ragweave add kb notes/

  ragweave add kb minutes/2026-11.md --strict

  git log | ragweave add kb - --stdin-name history
"""


def add(
    kb: Annotated[str, typer.Argument(metavar="KB", help="Folder or URI of the knowledge base.")],
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE", help="Files, folders, hf://datasets/NAME, or - for standard input."),
    ],
    stdin_format: StdinFormat = "txt",
    stdin_name: StdinName = "stdin",
    model: Annotated[
        str | None,
        typer.Option(help="Encoder: the one that embedded the knowledge base, by whatever name it has here."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a source that cannot be read, rather than skip it.")
    ] = False,
    engine: EngineKind = "local",
    workers: Workers = 2,
    ray_address: RayAddress = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted addition of the same sources.")
    ] = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    from ragweave.cli.changes import load_encoder, load_engine, show_change
    from ragweave.cli.console import quiet_libraries, stage_bars, warn
    from ragweave.errors import SourceWarning
    from ragweave.knowledge.base import KnowledgeBase
    from ragweave.knowledge.ingest.loaders.loader import find_sources

    # Mistakes in the arguments are told at once, not after a model was loaded.
    base = KnowledgeBase.open(kb)
    quiet_libraries()
    with spooled(sources, stdin_format, stdin_name) as given, stage_bars() as progress:
        files = find_sources(given)
        encoder = load_encoder(model or base.manifest.encoder.name, device=device)
        with warnings.catch_warnings(record=True) as skipped:
            warnings.simplefilter("always", SourceWarning)
            new = base.add(
                files,
                encoder=encoder,
                strict=strict,
                engine=load_engine(engine, workers, ray_address),
                resume=resume,
                progress=progress,
            )
    for warning in skipped:
        if issubclass(warning.category, SourceWarning):
            warn(str(warning.message))
    show_change(new, as_json=as_json, before=base.version)
