"""What the commands that train share: options, the file of further arguments, the check of their folder."""

from __future__ import annotations

import difflib
from dataclasses import fields
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


def trainer_options(
    *, epochs: float, learning_rate: float, batch_size: int, seed: int, device: str | None
) -> dict[str, Any]:
    """Arguments of transformers' Trainer that follow from the options of all commands that train.

    Raises:
        ConfigurationError: The device has a number, which the Trainer would not heed.
    """
    from ragweave.cli.console import stderr
    from ragweave.errors import ConfigurationError

    kind, _, number = (device or "cpu").partition(":")
    if number:
        raise ConfigurationError(
            f"--device {device} is one of several: training takes the first that it sees. Show it that one alone "
            f"(CUDA_VISIBLE_DEVICES={number}), and give --device {kind}."
        )
    return {
        "num_train_epochs": epochs,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": batch_size,
        "seed": seed,
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "report_to": [],
        "use_cpu": kind == "cpu",
        # As with all bars: on a terminal.
        "disable_tqdm": not stderr().is_terminal,
    }


def read_settings_file(path: Path | None, arguments: type[Any]) -> dict[str, Any]:
    """Read a YAML file of arguments by name.

    Args:
        path: The file; ``None`` for no further arguments.
        arguments: The dataclass that the arguments are of.

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
    known = {field.name: field for field in fields(arguments) if field.init and field.name != "output_dir"}
    for name, value in content.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {close[0]}?" if close else "docs/training.md tells where they are listed."
            raise ConfigurationError(f"{path} has an argument {name!r} that training does not take: {hint}")
        if isinstance(value, str) and "float" in str(known[name].type) and "str" not in str(known[name].type):
            content[name] = _number(path, name, value)
    return content


def _number(path: Path, name: str, value: str) -> float:
    """A number that YAML takes for text, as it does 1e-4."""
    from ragweave.errors import ConfigurationError

    try:
        return float(value)
    except ValueError:
        raise ConfigurationError(f"{path} has {name}: {value!r}, which is no number.") from None
