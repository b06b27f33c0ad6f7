"""A Trainer whose runs can be resumed: complete checkpoints, the same data, and finite weights.

Both kinds of training use it. accelerate belongs to the extra "train" and is imported here only.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from ragweave.errors import TrainingError
from ragweave.knowledge.store import replace_text

_T = TypeVar("_T")

DATA_FILE = "training-data.json"
# The messages of safetensors and torch for a file that cannot be written; they have no common exception.
_DISK_ERRORS = re.compile(r"os error|no space left|write failed|unexpected pos|iostream error", re.IGNORECASE)


class ResumableTrainer(Trainer):
    """transformers' Trainer with complete checkpoints, the same data after resuming, and finite weights."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._last_save: Path | None = None
        super().__init__(*args, **kwargs)
        self.add_callback(_FiniteGradients())
        self.add_callback(_RestoredCallbacks(self))

    def training_texts(self) -> Iterable[Sequence[str]]:
        """The texts of each training example; a resumed run must have the same."""
        return ()

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train as transformers' Trainer does.

        ``resume_from_checkpoint=True`` removes incomplete checkpoints and resumes from the last complete one, or
        starts over if there is none. Raises `TrainingError` if the loss or the gradient is not finite, a checkpoint
        cannot be written or is incomplete, or the data differs from that of the interrupted run.
        """
        checkpoint = self._prepare_run(resume_from_checkpoint)
        try:
            return super().train(checkpoint, **kwargs)
        except BaseException as error:  # including Ctrl-C
            if self._last_save is None or is_complete(self._last_save):
                raise
            if self.args.should_save:  # other processes would remove what is still being written
                shutil.rmtree(self._last_save, ignore_errors=True)
            if not _is_disk_error(error):
                raise
            last = last_checkpoint(self._last_save.parent)
            raise TrainingError(
                f"The checkpoint of step {self.state.global_step} could not be written to {self._last_save} "
                f"({error}). Free some space and resume with --resume (resume_from_checkpoint=True) "
                + (f"from {last.name}." if last else "(there is no checkpoint yet: the run starts over).")
            ) from error
        finally:  # accelerate's wrapper would go on rounding to bf16 or fp16, unlike the saved model
            self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Do one step; a loss that is not finite raises `TrainingError` and leaves the weights unchanged."""
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        if not torch.isfinite(loss).all():
            raise _not_finite(f"loss of step {self.state.global_step + 1} is {loss.item()}", self.args)
        return loss

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model."""
        if output_dir is not None and _internal_call:  # the first file of a checkpoint
            self._last_save = Path(output_dir)
            if self.args.should_save:  # while it is overwritten, the checkpoint is incomplete
                (self._last_save / TRAINER_STATE_NAME).unlink(missing_ok=True)
        super().save_model(output_dir, _internal_call)

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait until all processes have saved theirs.

        The trainer state is written next, by the first process alone, and marks the checkpoint as complete. There is
        no public hook between the two: callbacks run only after older checkpoints have been removed.
        `test_all_processes_have_saved_before_a_checkpoint_is_complete` fails when transformers drops this method.
        """
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _prepare_run(self, resume_from_checkpoint: str | bool | None) -> str | None:
        """Record or check the data, and choose the checkpoint."""
        self._last_save = None
        output = Path(str(self.args.output_dir))
        if not resume_from_checkpoint:
            if self.is_world_process_zero():
                output.mkdir(parents=True, exist_ok=True)
                replace_text(output / DATA_FILE, json.dumps(_digest(self.training_texts())) + "\n")
            return None
        _check_data(output, self.training_texts())
        if resume_from_checkpoint is True:
            _check_checkpoints(output)
            if self.args.should_save:
                for folder in checkpoints(output):
                    if not is_complete(folder):
                        shutil.rmtree(folder)
            self.accelerator.wait_for_everyone()
            last = last_checkpoint(output)
            return None if last is None else str(last)
        if not is_complete(Path(resume_from_checkpoint)):
            raise TrainingError(
                f"The checkpoint {resume_from_checkpoint} is incomplete: resume from the last complete one with "
                "--resume (resume_from_checkpoint=True)."
            )
        return resume_from_checkpoint


class _FiniteGradients(TrainerCallback):
    """Keeps gradients that are not finite out of the weights."""

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Check the gradients of a step, which are summed over all processes by now, before it changes weights."""
        # A gradient scaler checks them itself: its first scales are too large on purpose, and it skips those steps.
        if getattr(kwargs.get("optimizer"), "scaler", None) is not None:
            return
        weights = kwargs["model"].parameters()
        norm: Any = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # sharded models
        if not math.isfinite(norm):
            raise _not_finite(f"gradient norm of step {state.global_step + 1} is {norm}", args)


class _RestoredCallbacks(TrainerCallback):
    """Restores the counter of early stopping, and lets checkpoints contain the new callbacks of a resumed run."""

    # transformers' restore_callback_states_from_checkpoint works only for callbacks that need no arguments.

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Take the states from the checkpoint of a resumed run."""
        if not state.global_step:
            return
        saved: dict[str, Any] = state.stateful_callbacks
        for callback in self.trainer.callback_handler.callbacks:
            if not isinstance(callback, ExportableState):
                continue
            exported = saved.setdefault(type(callback).__name__, callback.state())
            if isinstance(callback, EarlyStoppingCallback) and isinstance(exported, dict):
                count = exported["attributes"]["early_stopping_patience_counter"]
                callback.early_stopping_patience_counter = count


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, complete or not, in the order of their steps."""
    steps = {
        int(number): path
        for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/")
        if (number := path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")).isdecimal()
    }
    return [steps[step] for step in sorted(steps)]


def is_complete(checkpoint: Path) -> bool:
    """Whether the trainer state, the last file of a checkpoint, can be read."""
    try:
        state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(state, dict) and "global_step" in state


def last_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint of a run; ``None`` if there is none."""
    return next((path for path in reversed(checkpoints(folder)) if is_complete(path)), None)


def gather(rows: list[_T]) -> list[_T]:
    """The rows of all processes, in the order of the processes."""
    from accelerate.utils import gather_object

    return list(gather_object(rows))


def broadcast(value: _T) -> _T:
    """Send the value of the first process to all processes."""
    from accelerate.utils import broadcast_object_list

    values = [value]
    broadcast_object_list(values)
    return values[0]


def _check_checkpoints(folder: Path) -> None:
    """Raise `TrainingError` if all states of a run are damaged: it would start over and delete its checkpoints.

    A checkpoint without a state does not count: its run was interrupted before it wrote the state.
    """
    states = [path / TRAINER_STATE_NAME for path in checkpoints(folder)]
    damaged = [path for path in states if path.exists() and not is_complete(path.parent)]
    if damaged and last_checkpoint(folder) is None:
        raise TrainingError(
            f"No checkpoint of the run in {folder} can be resumed: {damaged[-1]} is damaged. Restore it from a copy, "
            "or leave out --resume (resume_from_checkpoint) to start over."
        )


def _check_data(folder: Path, texts: Iterable[Sequence[str]]) -> None:
    """Check that a resumed run has the same data as the interrupted one."""
    try:
        before = json.loads((folder / DATA_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"There is no run in {folder} to resume: leave out --resume (resume_from_checkpoint) to start one."
        ) from error
    now = _digest(texts)
    if before != now:
        raise TrainingError(
            f"The training data has changed since the run in {folder} started ({before.get('questions')} questions "
            f"then, {now['questions']} now): restore the file (for a retriever, also the knowledge base and "
            "--negatives, n_negatives), or start over with another --output (output_dir)."
        )


def _digest(texts: Iterable[Sequence[str]]) -> dict[str, str | int]:
    digest, count = hashlib.sha256(), 0
    for row in texts:
        digest.update(json.dumps([*row]).encode())
        count += 1
    return {"questions": count, "sha256": digest.hexdigest()}


def _is_disk_error(error: BaseException) -> bool:
    if isinstance(error, RuntimeError | SafetensorError):
        return _DISK_ERRORS.search(str(error)) is not None
    return isinstance(error, OSError)


def _not_finite(problem: str, args: TrainingArguments) -> TrainingError:
    last = last_checkpoint(Path(str(args.output_dir)))
    return TrainingError(
        f"The {problem}: lower the learning rate, clip gradients (max_grad_norm), or train in float32 or bfloat16 "
        "instead of float16. "
        + (f"The last checkpoint is {last}." if last else "There is no checkpoint yet.")
    )
