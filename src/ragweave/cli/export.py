"""``ragweave export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ragweave
from ragweave.cli import options
from ragweave.cli.console import count_of, print_json, print_text, stage_bars


def export(
    kb: options.KnowledgeBaseArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="A file that ends in .parquet or .jsonl.")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write the passages of a knowledge base with their places and vectors to a file.

    The file appears when it is complete. Its vectors are in the column embeddings, so that a folder of Parquet files
    opens as an index of RagRetriever.

    Examples:
      ragweave export kb --output passages.parquet
      ragweave export kb --output passages.jsonl --overwrite
    """
    base = ragweave.KnowledgeBase.open(kb)
    with stage_bars() as progress:
        base.export(output, overwrite=overwrite, progress=progress)
    if as_json:
        print_json({"path": str(output), "passages": len(base), "bytes": output.stat().st_size})
    else:
        print_text(f"{output}: {count_of(len(base), 'passage')} of version {base.version}.")
