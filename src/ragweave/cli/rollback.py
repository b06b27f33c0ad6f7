"""``ragweave rollback``."""

from __future__ import annotations

from typing import Annotated

import typer

from ragweave.cli import options
from ragweave.cli.console import print_json, print_text


def rollback(
    kb: options.KnowledgeBaseArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A version from 'ragweave versions'.")],
    as_json: options.AsJson = False,
) -> None:
    """Make another version of a knowledge base the current one.

    Later versions are kept, so the same command also goes forward.

    Examples:
      ragweave versions kb
      ragweave rollback kb 000002
    """
    from ragweave.knowledge.base import swap

    base = swap(kb, version)
    if as_json:
        print_json(base.info())
        return
    print_text(
        f"{kb}: version {version} is current, {len(base)} passages from {base.manifest.documents} documents."
    )
