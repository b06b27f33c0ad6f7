"""``ragweave delete``."""

from __future__ import annotations

from typing import Annotated

import typer

import ragweave
from ragweave.cli import options
from ragweave.cli.console import note_compaction, print_change


def delete(
    kb: options.KnowledgeBaseArgument,
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="Id of a passage or of a document.")
    ] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--source", metavar="SOURCE", help="Source file, folder, or pattern; only ** crosses folders."
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete passages, documents or sources from a knowledge base.

    They are no longer retrieved. The previous version keeps them until 'ragweave compact' deletes it.

    Examples:
      ragweave delete kb --id minutes/2026-11.md
      ragweave delete kb --source notes/old --source 'notes/*.csv'
    """
    if not ids and not sources:
        raise typer.BadParameter("name what to delete with --id or --source.")
    base = ragweave.KnowledgeBase.open(kb).delete(ids=ids or (), sources=sources or ())
    print_change(base, as_json=as_json)
    note_compaction(base)
