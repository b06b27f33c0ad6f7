"""``ragweave reembed``."""

from __future__ import annotations

from typing import Annotated

import typer

import ragweave
from ragweave.cli import options, takes_options
from ragweave.cli.console import print_change, stage_bars
from ragweave.errors import ConfigurationError


@takes_options
def reembed(
    kb: options.KnowledgeBaseArgument,
    *,
    model: Annotated[str, typer.Option(help="Encoder: 'embedded', a hub name, or a folder.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="KB", help="New folder, or an existing knowledge base.")
    ],
    version: Annotated[str | None, typer.Option(help="Version of KB (default: the current one).")] = None,
    engine: options.EngineKind = "local",
    workers: options.Workers = 2,
    ray_address: options.RayAddress = None,
    keep: Annotated[
        int | None, typer.Option(min=0, help="Number of older versions at --output to keep (default: all).")
    ] = None,
    keep_version: Annotated[
        list[str] | None,
        typer.Option(help="With --keep, a further version at --output to keep; may be repeated."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the encoder in the knowledge base (default: --model).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an interrupted run with the same encoder.")
    ] = False,
    encoding: options.EncoderOptions,
    as_json: options.AsJson = False,
) -> None:
    """Embed the passages of a knowledge base with another encoder.

    The sources are not read again. Use this to index a knowledge base with a trained document encoder. An existing
    knowledge base at --output gets a new version atomically.

    Examples:
      ragweave reembed kb --model model/document-encoder --output trained-kb
      ragweave reembed kb --model model/document-encoder --output trained-kb --engine ray --workers 8
      ragweave reembed kb --model model/document-encoder --output trained-kb --resume
    """
    if keep_version and keep is None:
        raise ConfigurationError("--keep-version needs --keep. Without --keep, all versions are kept.")
    base = ragweave.KnowledgeBase.open(kb, version=version)
    encoder = encoding.load(model)
    if name is not None:
        encoder.name = name
    with stage_bars() as progress:
        written = base.reembed(
            output,
            encoder=encoder,
            engine=options.load_engine(engine, workers, ray_address),
            keep=keep,
            keep_named=keep_version or (),
            resume=resume,
            progress=progress,
        )
    print_change(written, as_json=as_json)
