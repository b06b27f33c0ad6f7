"""``ragweave demo``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ragweave.cli.console import print_text
from ragweave.errors import ConfigurationError

_SAMPLES = Path(__file__).parents[1] / "samples"


def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder for the documents.")] = Path(
        "samples"
    ),
) -> None:
    """Write five short documents about an island to a folder, and show what to do with them.

    Examples:
      ragweave demo
      ragweave demo island
    """
    if folder.exists():
        raise ConfigurationError(f"{folder} exists. Name a new folder.")
    shutil.copytree(_SAMPLES, folder)
    print_text(
        f"{folder}: {sum(1 for _ in folder.rglob('*.md'))} documents. Continue with:\n\n"
        f"  ragweave index {folder} --output kb\n"
        '  ragweave ask --kb kb "When was the lighthouse built?"\n'
        "  ragweave serve --kb kb"
    )
