"""``ragweave rollback``: an older version of a knowledge base, in force again."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from ragweave.cli.changes import AsJson

HELP = """Put another version of a knowledge base in force.

The versions after it stay: the same command goes forward again.

Examples:

  ragweave versions kb

  ragweave rollback kb 000002
"""


def rollback(
    kb: Annotated[str, typer.Argument(metavar="KB", help="Folder or URI of the knowledge base.")],
    version: Annotated[str, typer.Argument(metavar="VERSION", help="One that 'ragweave versions' lists.")],
    as_json: AsJson = False,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    from ragweave.cli.console import stdout
    from ragweave.knowledge.base import swap

    base = swap(kb, version)
    if as_json:
        sys.stdout.write(json.dumps(base.info(), ensure_ascii=False) + "\n")
        return
    stdout().print(
        f"{kb}: version {version} is in force, {len(base)} passages from {base.manifest.documents} documents.",
        markup=False,
        soft_wrap=True,
    )
