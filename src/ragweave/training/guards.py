"""What all runs share: checkpoints are whole or not there, and weights are never made of what is no number."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from ragweave.errors import TrainingError
from ragweave.training.record import check_record, write_record

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

_FULL_DISK = re.compile(r"os error|no space left|write failed|unexpected pos|iostream error", re.IGNORECASE)
"""What safetensors and torch say, each with an error of its own, where a file cannot be written."""


class GuardedTrainer(Trainer):
    """transformers' Trainer, with checkpoints that can be gone on from and weights that stay numbers.

    Args:
        *args: Those of transformers' Trainer, or of the class of it that stands beside this one among the bases.
        **kwargs: Likewise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(_FiniteGradients())

    def learned(self) -> Iterable[Sequence[str]]:
        """What is learned from, a row of texts each; a run that goes on has to learn from the same."""
        return ()

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train as transformers' Trainer does.

        Args:
            resume_from_checkpoint: A checkpoint to go on from, or true for the last one that is whole, where those
                that are not are removed; where there is none yet, the run begins.
            **kwargs: Handed on.

        Raises:
            TrainingError: The run cannot go on: loss or gradient are no numbers, a checkpoint cannot be written or is
                not whole, or the data is not that which the run was begun with.
        """
        output = Path(str(self.args.output_dir))
        if not resume_from_checkpoint:
            if self.is_world_process_zero():
                write_record(output, self.learned())
            return super().train(None, **kwargs)
        check_record(output, self.learned())
        if resume_from_checkpoint is True:
            if self.args.should_save:
                for folder in checkpoints(output):
                    if not is_whole(folder):
                        shutil.rmtree(folder)
            self.accelerator.wait_for_everyone()
            last = last_checkpoint(output)
            return super().train(None if last is None else str(last), **kwargs)
        if not is_whole(Path(resume_from_checkpoint)):
            raise TrainingError(
                f"{resume_from_checkpoint} is no whole checkpoint: go on from the last one that is, with "
                "resume_from_checkpoint=True."
            )
        return super().train(resume_from_checkpoint, **kwargs)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Do one step as transformers' Trainer does.

        Raises:
            TrainingError: The loss is no number; the weights are as they were before the step.
        """
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        if not torch.isfinite(loss).all():
            raise _no_number(f"loss of step {self.state.global_step + 1} is {loss.item()}", self.args)
        return loss

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint, or nothing: half of one could not be gone on from."""
        folder = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        try:
            if self.args.should_save:  # of one that is written over, what says that it is whole goes first
                (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
            super()._save_checkpoint(model, trial)
        except BaseException as error:  # Ctrl-C too
            if is_whole(folder):  # older ones may have been removed already
                raise
            if self.args.should_save:  # the others would remove what is still being written
                shutil.rmtree(folder, ignore_errors=True)
            if not _is_of_disk(error):
                raise
            last = last_checkpoint(folder.parent)
            raise TrainingError(
                f"The checkpoint of step {self.state.global_step} could not be written to {folder} ({error}): free "
                "some space and go on with --resume (resume_from_checkpoint=True) "
                + (f"from {last.name}." if last else "(there is no checkpoint yet: the run begins anew).")
            ) from error

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait until all processes have written theirs, so that the file which comes last says that all is there."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _load_callback_state(self) -> None:
        """Let early stopping go on counting, and callbacks that the checkpoint does not know be saved.

        transformers itself would make the callbacks anew, and can do so only with those that need nothing to be made.
        """
        super()._load_callback_state()
        saved: dict[str, Any] = self.state.stateful_callbacks
        for callback in self.callback_handler.callbacks:
            if not isinstance(callback, ExportableState):
                continue
            state = saved.setdefault(type(callback).__name__, callback.state())
            if isinstance(callback, EarlyStoppingCallback) and isinstance(state, dict):
                callback.early_stopping_patience_counter = state["attributes"][
                    "early_stopping_patience_counter"
                ]


class _FiniteGradients(TrainerCallback):
    """Keeps gradients that are no numbers out of the weights, where no scaler of gradients does."""

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the gradients of a step, which are those of all processes by now.

        Raises:
            TrainingError: One is no number; the weights are as they were before the step.
        """
        # A scaler looks for itself: its first scales are meant to be too large, and it leaves such steps out.
        if getattr(kwargs.get("optimizer"), "scaler", None) is not None:
            return
        weights = kwargs["model"].parameters()
        norm: Any = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        if not math.isfinite(float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)):
            raise _no_number(f"gradient of step {state.global_step + 1} is no number", args)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, whole or not, in the order of their steps."""
    named = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    found = {own: named.fullmatch(own.name) for own in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")}
    steps = {own: int(match[1]) for own, match in found.items() if match and own.is_dir()}
    return sorted(steps, key=lambda own: steps[own])


def is_whole(checkpoint: Path) -> bool:
    """Whether all of a checkpoint was written: the state of the trainer, which comes last, can be read."""
    try:
        state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(state, dict) and "global_step" in state


def last_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint of a run, if there is one."""
    return next((own for own in reversed(checkpoints(folder)) if is_whole(own)), None)


def _is_of_disk(error: BaseException) -> bool:
    if isinstance(error, RuntimeError | SafetensorError):
        return _FULL_DISK.search(str(error)) is not None
    return isinstance(error, OSError)


def _no_number(what: str, args: TrainingArguments) -> TrainingError:
    last = last_checkpoint(Path(str(args.output_dir)))
    return TrainingError(
        f"The {what}: lower the learning rate, clip gradients (max_grad_norm), or train in float32 or bfloat16 "
        "rather than float16. "
        + (f"The last checkpoint is {last}." if last else "No checkpoint had been written yet.")
    )
