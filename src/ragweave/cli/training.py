"""What the commands that train share: options, the file of further arguments, the check of their folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

StartingModel = Annotated[
    str, typer.Option("--model", help="What to begin with: 'embedded', or folder or hub name of a RAG model.")
]
Epochs = Annotated[float, typer.Option("--epochs", min=0, help="How often the data is gone through.")]
LearningRate = Annotated[float, typer.Option("--learning-rate", help="Of AdamW, falling to 0.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the order of the data, and of dropout.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="YAML", help="Further arguments of transformers' Trainer, by name."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only so many questions of the data.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --output.")]


def check_output(folder: Path, *, resume: bool) -> None:
    """Check that a run may be written to a folder.

    Raises:
        ConfigurationError: There is something in it, and the run does not go on from that.
    """
    from ragweave.errors import ConfigurationError

    if folder.exists() and any(folder.iterdir()) and not resume:
        raise ConfigurationError(f"{folder} is not empty: choose another --output, or add --resume.")


def read_settings_file(path: Path | None) -> dict[str, Any]:
    """Read a YAML file of arguments by name.

    Raises:
        ConfigurationError: It cannot be read, or holds something else.
    """
    from ragweave.errors import ConfigurationError

    if path is None:
        return {}
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as YAML ({error}): write 'name: value' lines."
        ) from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} holds no arguments: write 'name: value' lines.")
    return content
