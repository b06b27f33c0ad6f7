"""``ragweave compact``: a knowledge base in one piece, without what was deleted."""

from __future__ import annotations

from typing import Annotated

import typer

from ragweave.cli.changes import AsJson

HELP = """Write what a knowledge base holds anew, as one piece with one index, and delete old versions.

Additions are pieces of their own, each searched apart, and deleted passages keep their place on the disk: this ends
both. Nothing is embedded again.

Examples:

  ragweave compact kb

  ragweave compact kb --keep 0
"""


def compact(
    kb: Annotated[str, typer.Argument(metavar="KB", help="Folder or URI of the knowledge base.")],
    keep: Annotated[int, typer.Option(min=0, help="How many older versions are kept.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    from ragweave.cli.changes import show_change
    from ragweave.cli.console import stage_bars
    from ragweave.knowledge.base import KnowledgeBase

    with stage_bars() as progress:
        base = KnowledgeBase.open(kb).compact(keep=keep, progress=progress)
    show_change(base, as_json=as_json)
