"""``ragweave compact``."""

from __future__ import annotations

from typing import Annotated

import typer

import ragweave
from ragweave.cli import options
from ragweave.cli.console import print_change, stage_bars


def compact(
    kb: options.KnowledgeBaseArgument,
    keep: Annotated[int, typer.Option(min=0, help="Number of older versions to keep.")] = 1,
    as_json: options.AsJson = False,
) -> None:
    """Merge the segments of a knowledge base and delete old versions.

    Each addition is a segment that is searched separately, and deleted passages stay on disk. Compaction writes one
    segment with one index. Nothing is embedded again.

    Examples:
      ragweave compact kb
      ragweave compact kb --keep 0
    """
    with stage_bars() as progress:
        base = ragweave.KnowledgeBase.open(kb).compact(keep=keep, progress=progress)
    print_change(base, as_json=as_json)
