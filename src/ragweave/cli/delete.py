"""``ragweave delete``: passages, documents and sources out of a knowledge base."""

from __future__ import annotations

from typing import Annotated

import typer

from ragweave.cli.changes import AsJson

HELP = """Delete passages, documents or sources from a knowledge base.

They are found no more; the version before still has them, until 'ragweave compact' deletes it.

Examples:

  ragweave delete kb --id minutes/2026-11.md

  ragweave delete kb --source notes/old --source 'notes/*.csv'
"""


def delete(
    kb: Annotated[str, typer.Argument(metavar="KB", help="Folder or URI of the knowledge base.")],
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="Id of a passage or of a document.")
    ] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--source", metavar="SOURCE", help="A file that was read, a folder of such, or a pattern."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    from ragweave.cli.changes import show_change
    from ragweave.knowledge.base import KnowledgeBase

    if not ids and not sources:
        raise typer.BadParameter("name what to delete with --id or --source.")
    show_change(KnowledgeBase.open(kb).delete(ids=ids or (), sources=sources or ()), as_json=as_json)
