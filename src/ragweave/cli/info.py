"""``ragweave info``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

import ragweave
from ragweave.cli import options
from ragweave.cli.console import print_json, stdout


def info(
    kb: options.KnowledgeBaseArgument,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every byte and compare it with its recorded hash.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show the content and the settings of a knowledge base.

    Examples:
      ragweave info kb
      ragweave info kb --json
      ragweave info kb --verify
    """
    base = ragweave.KnowledgeBase.open(kb)
    if verify:
        base.verify()
    content = base.info()
    if as_json:
        print_json(content)
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in content.items():
        table.add_row(name, f"{value:,}" if name == "bytes" else str(value))
    stdout().print(table, markup=False)
