"""``ragweave info``: what a knowledge base holds."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

HELP = """Show what a knowledge base holds and how it was made.

Examples:

  ragweave info kb

  ragweave info kb --json

  ragweave info kb --verify
"""


def info(
    kb: Annotated[str, typer.Argument(metavar="KB", help="Folder or URI of the knowledge base.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every byte and compare it with its recorded hash.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    from ragweave.knowledge.base import KnowledgeBase

    base = KnowledgeBase.open(kb)
    if verify:
        base.verify()
    content = base.info()
    if as_json:
        sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")
        return
    from rich.table import Table

    from ragweave.cli.console import stdout

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in content.items():
        table.add_row(name, f"{value:,}" if name == "bytes" else str(value))
    stdout().print(table, markup=False)
