"""``ragweave versions``: what became of a knowledge base."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

HELP = """List the versions of a knowledge base, the oldest first; a star marks the one in force.

Examples:

  ragweave versions kb

  ragweave versions kb --json
"""


def versions(
    kb: Annotated[str, typer.Argument(metavar="KB", help="Folder or URI of the knowledge base.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a version.")] = False,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    from ragweave.knowledge.base import KnowledgeBase

    base = KnowledgeBase.open(kb)
    rows = [
        {
            "version": name,
            "in_force": name == base.version,
            "created": manifest.created,
            "change": manifest.change.kind,
            "added": manifest.change.added,
            "deleted": manifest.change.deleted,
            "passages": manifest.passages,
            "documents": manifest.documents,
        }
        for name, manifest in zip(base.version_names(), base.versions(), strict=True)
    ]
    if as_json:
        sys.stdout.writelines(json.dumps(row) + "\n" for row in rows)
        return
    from rich.table import Table

    from ragweave.cli.console import stdout

    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    for heading in ("  version", "created (UTC)", "change", "added", "deleted", "passages", "documents"):
        number = heading in {"added", "deleted", "passages", "documents"}
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        star, created = "*" if row.pop("in_force") else " ", str(row.pop("created"))
        version, *others = (str(value) for value in row.values())
        table.add_row(f"{star} {version}", f"{created[:10]} {created[11:16]}", *others)
    stdout().print(table, markup=False)
