"""``ragweave rollback``."""

from __future__ import annotations

from typing import Annotated

import typer

from ragweave.cli import options
from ragweave.cli.console import count_of, print_json, print_text


def rollback(
    kb: options.KnowledgeBaseArgument,
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="A version from 'ragweave versions', such as 2.")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Make another version of a knowledge base the current one.

    Later versions are kept, so the same command also goes forward.

    Examples:
      ragweave versions kb
      ragweave rollback kb 2
    """
    from ragweave.knowledge.base import swap

    version = version.zfill(6) if version.isdecimal() else version
    base = swap(kb, version)
    if as_json:
        print_json(base.info())
        return
    print_text(
        f"{kb}: version {version} is current, {count_of(len(base), 'passage')} from "
        f"{count_of(base.manifest.documents, 'document')}."
    )
