"""``ragweave publish``."""

from __future__ import annotations

from typing import Annotated

import typer

import ragweave
from ragweave.cli import options
from ragweave.cli.console import count_of, print_json, print_text, stage_bars
from ragweave.errors import ConfigurationError


def publish(
    kb: Annotated[
        str,
        typer.Argument(metavar="KB", help="Folder or URI of the knowledge base; with --rollback, the URI."),
    ],
    uri: Annotated[
        str | None, typer.Argument(metavar="URI", help="milvus+http://HOST:19530?collection=NAME.")
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Restore the previously published version.")
    ] = False,
    keep: Annotated[int, typer.Option(min=0, help="Earlier published versions to keep.")] = 1,
    as_json: options.AsJson = False,
) -> None:
    """Publish the current version of a knowledge base to Milvus, for reading by many machines.

    The version is written into a separate collection, and becomes current when it is complete. Run the same command
    again after an interruption to continue. --kb accepts the URI wherever a knowledge base is only read.

    Examples:
      ragweave publish kb 'milvus+http://vectors:19530?collection=kb'
      ragweave ask --kb 'milvus+http://vectors:19530?collection=kb' "What did we decide about the roof?"
      ragweave publish --rollback 'milvus+http://vectors:19530?collection=kb'
    """
    if rollback == (uri is not None):
        raise ConfigurationError("Give the knowledge base and the URI, or --rollback and the URI alone.")
    if uri is None:
        from ragweave.knowledge.base import roll_back

        base = roll_back(kb)
    else:
        with stage_bars() as progress:
            base = ragweave.KnowledgeBase.open(kb).publish(uri, keep=keep, progress=progress)
    if as_json:
        print_json(base.info())
    else:
        print_text(f"{base.path}: version {base.version} is current, {count_of(len(base), 'passage')}.")
