"""``ragweave versions``."""

from __future__ import annotations

from rich.table import Table

import ragweave
from ragweave.cli import options
from ragweave.cli.console import print_json, stdout


def versions(kb: options.KnowledgeBaseArgument, as_json: options.AsJson = False) -> None:
    """List the versions of a knowledge base, oldest first. A star marks the current one.

    Examples:
      ragweave versions kb
      ragweave versions kb --json
    """
    base = ragweave.KnowledgeBase.open(kb)
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    for heading in ("  version", "created (UTC)", "change", "added", "deleted", "passages", "documents"):
        is_number = heading in {"added", "deleted", "passages", "documents"}
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    for name, manifest in zip(base.version_names(), base.versions(), strict=True):
        in_force, created, change = name == base.version, manifest.created, manifest.change
        counts = {
            "added": change.added,
            "deleted": change.deleted,
            "passages": manifest.passages,
            "documents": manifest.documents,
        }
        if as_json:
            print_json(
                {"version": name, "in_force": in_force, "created": created, "change": change.kind, **counts}
            )
        else:
            date = f"{created[:10]} {created[11:16]}"
            table.add_row(f"{'*' if in_force else ' '} {name}", date, change.kind, *map(str, counts.values()))
    if not as_json:
        stdout().print(table, markup=False)
