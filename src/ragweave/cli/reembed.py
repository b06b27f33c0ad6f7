"""``ragweave reembed``: the same passages with the vectors of another encoder."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ragweave.cli.changes import AsJson, EngineKind, RayAddress, Workers
from ragweave.cli.models import Device

HELP = """Embed the passages of a knowledge base with another encoder.

The sources are not read again: a trained document encoder gets its index in this way. What is at the output already
gets a new version, in one step.

Examples:

  ragweave reembed kb --model model/document-encoder --output trained-kb

  ragweave reembed kb --model model/document-encoder --output trained-kb --engine ray --workers 8

  ragweave reembed kb --model model/document-encoder --output trained-kb --resume
"""


def reembed(
    kb: Annotated[str, typer.Argument(metavar="KB", help="Folder of the knowledge base.")],
    model: Annotated[str, typer.Option(help="Encoder: 'embedded', a name on the hub, or a folder.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="KB", help="Folder to make, or to give a new version.")
    ],
    version: Annotated[
        str | None, typer.Option(help="Which version of KB (default: the one in force).")
    ] = None,
    engine: EngineKind = "local",
    workers: Workers = 2,
    ray_address: RayAddress = None,
    keep: Annotated[
        int | None, typer.Option(min=0, help="How many older versions at --output are kept (default: all).")
    ] = None,
    keep_version: Annotated[
        list[str] | None,
        typer.Option(help="With --keep, a version at --output that is kept too; may be given several times."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the knowledge base calls the encoder (default: as --model).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where this was interrupted, with the same encoder.")
    ] = False,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="Type that the encoder computes in; auto: bfloat16 where the processor has it."),
    ] = "float32",
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    from ragweave.cli.changes import load_encoder, load_engine, show_change
    from ragweave.cli.console import quiet_libraries, stage_bars
    from ragweave.errors import ConfigurationError
    from ragweave.knowledge.base import KnowledgeBase

    if keep_version and keep is None:
        raise ConfigurationError("--keep-version needs --keep: without it all versions are kept.")
    base = KnowledgeBase.open(kb, version=version)
    quiet_libraries()
    encoder = load_encoder(model, dtype, device)
    if name is not None:
        encoder.name = name
    with stage_bars() as progress:
        written = base.reembed(
            output,
            encoder=encoder,
            engine=load_engine(engine, workers, ray_address),
            keep=keep,
            keep_named=keep_version or (),
            resume=resume,
            progress=progress,
        )
    show_change(written, as_json=as_json)
