"""Shared code of the training commands: arguments for the Trainer, and the display of progress."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from rich.progress import TaskID
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from ragweave.cli.console import bars_with_notes, stderr
from ragweave.errors import ConfigurationError
from ragweave.training.resumable_trainer import last_checkpoint

_HIDDEN_METRICS = frozenset({"epoch", "total_flos", "train_samples_per_second", "train_steps_per_second"})


def check_output(folder: Path, *, resume: bool) -> None:
    """Check that a run may write to a folder.

    Raises:
        ConfigurationError: The folder is not empty, and the run does not resume.
    """
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise ConfigurationError(f"{folder} is not empty. Choose another --output, or add --resume.")


def trainer_options(
    *, epochs: float, learning_rate: float, batch_size: int, seed: int, device: str | None
) -> dict[str, Any]:
    """The arguments of transformers' Trainer that all training commands set.

    Raises:
        ConfigurationError: The device has a number, which the Trainer would ignore.
    """
    kind, _, number = (device or "cpu").partition(":")
    if number:
        raise ConfigurationError(
            f"--device {device} selects one of several devices, but training uses the first one. Set "
            f"CUDA_VISIBLE_DEVICES={number} and use --device {kind}."
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
        "disable_tqdm": not stderr().is_terminal,
    }


def read_config(path: Path | None, arguments: type[TrainingArguments]) -> dict[str, Any]:
    """Read a YAML file of training arguments.

    Args:
        path: The file; ``None`` for no arguments.
        arguments: The dataclass of the arguments.

    Raises:
        ConfigurationError: The file cannot be read, or contains something else.
    """
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as YAML ({error}). Write 'name: value' lines."
        ) from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} contains no arguments. Write 'name: value' lines.")
    known = {field.name: field for field in fields(arguments) if field.init and field.name != "output_dir"}
    for name, value in content.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            hint = f"Did you mean {close[0]}?" if close else "docs/training.md says where they are listed."
            raise ConfigurationError(f"{path}: there is no training argument {name!r}. {hint}")
        if isinstance(value, str) and "float" in str(known[name].type) and "str" not in str(known[name].type):
            try:
                content[name] = float(value)  # YAML reads 1e-4 as a string
            except ValueError:
                raise ConfigurationError(f"{path}: {name} is {value!r}. Write a number.") from None
    return content


@contextmanager
def show_training(trainer: Trainer) -> Iterator[None]:
    """Show the progress of a trainer on standard error, instead of transformers' output on standard output."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.args.disable_tqdm = True  # two progress bars would overwrite each other
    progress = TrainingProgress(trainer)
    if trainer.is_world_process_zero():
        trainer.add_callback(progress)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        last = last_checkpoint(Path(trainer.args.output_dir))
        interrupt.add_note(
            "there is no checkpoint yet; the same command with --resume starts over."
            if last is None
            else f"run the same command with --resume to continue from {last}."
        )
        raise
    finally:
        progress.stop()


class TrainingProgress(TrainerCallback):
    """Shows bars for steps and evaluation on a terminal, and lines elsewhere."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._bars = bars_with_notes()
        self._steps: TaskID | None = None
        self._answers: TaskID | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the bar. A resumed run starts in the middle."""
        self._steps = self._bars.add_task(
            "Training", total=state.max_steps, completed=state.global_step, note=""
        )
        self._bars.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        if self._steps is not None:
            self._bars.update(self._steps, completed=state.global_step)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the bar of the evaluation, and remove it at the end."""
        done, total = getattr(self._trainer, "answering", (0, 0))
        if self._answers is None:
            self._answers = self._bars.add_task("Answering", note="")
        self._bars.update(self._answers, completed=done, total=total)
        if done == total:
            self._bars.remove_task(self._answers)
            self._answers = None

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Show the loss beside the bar, and other metrics as a line. Without a terminal, all are lines."""
        metrics = {name: value for name, value in (logs or {}).items() if name not in _HIDDEN_METRICS}
        console = self._bars.console
        if "loss" in metrics and self._steps is not None and console.is_terminal:
            self._bars.update(self._steps, note=f"loss {float(metrics['loss']):.3f}")
            return
        text = ", ".join(
            f"{name.removeprefix('eval_')} {f'{value:.4g}' if isinstance(value, float) else value}"
            for name, value in metrics.items()
        )
        console.print(f"step {state.global_step} of {state.max_steps}: {text}", soft_wrap=True)

    def stop(self) -> None:
        """Stop updating the bars."""
        self._bars.stop()
