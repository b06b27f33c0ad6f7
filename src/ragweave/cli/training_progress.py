"""What the commands that train show meanwhile, on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import TaskID
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from ragweave.cli.console import bars_with_notes

_LEFT_OUT = frozenset({"epoch", "total_flos", "train_samples_per_second", "train_steps_per_second"})


@contextmanager
def show_training(trainer: Trainer) -> Iterator[None]:
    """Show how a trainer gets on while this lasts, in place of what transformers would print on standard output."""
    for theirs in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(theirs)
    trainer.args.disable_tqdm = True  # two kinds of bars would write over each other
    progress = TrainingProgress(trainer)
    if trainer.is_world_process_zero():
        trainer.add_callback(progress)
    try:
        yield
    finally:
        progress.stop()


class TrainingProgress(TrainerCallback):
    """A callback that draws a bar of the steps and one of the questions that are answered to evaluate.

    Args:
        trainer: What it is told about.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._bars = bars_with_notes()
        self._console = self._bars.console
        self._task: TaskID | None = None
        self._answering: TaskID | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the bar, as far as an earlier run has come."""
        self._task = self._bars.add_task(
            "Training", total=state.max_steps, completed=state.global_step, note=""
        )
        self._bars.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on by a step."""
        if self._task is not None:
            self._bars.update(self._task, completed=state.global_step)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on by the questions that were answered; the bar goes when all are."""
        done, total = getattr(self._trainer, "answering", (0, 0))
        if self._answering is None:
            self._answering = self._bars.add_task("Answering", note="")
        self._bars.update(self._answering, completed=done, total=total)
        if done == total:
            self._bars.remove_task(self._answering)
            self._answering = None

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Show figures: the loss beside the bar, all others and those without a bar as a line."""
        figures = {name: value for name, value in (logs or {}).items() if name not in _LEFT_OUT}
        if "loss" in figures and self._task is not None and self._console.is_terminal:
            self._bars.update(self._task, note=f"loss {float(figures['loss']):.3f}")
            return
        shown = ", ".join(f"{name.removeprefix('eval_')} {_short(value)}" for name, value in figures.items())
        self._console.print(
            f"step {state.global_step} of {state.max_steps}: {shown}", markup=False, soft_wrap=True
        )

    def stop(self) -> None:
        """Leave the bar as it is, however training ended."""
        self._bars.stop()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
