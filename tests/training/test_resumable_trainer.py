"""Runs can be resumed: checkpoints are complete, weights stay finite, and callbacks keep their state."""

from __future__ import annotations

import errno

import pytest
import torch
from torch import nn
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState

from ragweave.errors import TrainingError
from ragweave.training.resumable_trainer import ResumableTrainer, is_complete, last_checkpoint

ROWS = [{"x": torch.tensor([float(n)]), "labels": torch.tensor([2.0 * n])} for n in range(4)]


class Line(nn.Module):
    """A model with one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x, labels):
        return {"loss": ((self.weight * x - labels) ** 2).mean()}


def trainer_of(folder, *callbacks, **more):
    args = TrainingArguments(
        output_dir=str(folder),
        **{
            "per_device_train_batch_size": 2,
            "num_train_epochs": 2,
            "save_strategy": "steps",
            "save_steps": 1,
            "learning_rate": 0.1,
            "lr_scheduler_type": "constant",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            **more,
        },
    )
    return ResumableTrainer(Line(), args, train_dataset=ROWS, eval_dataset=ROWS, callbacks=list(callbacks))


class AtStep(TrainerCallback, ExportableState):
    """Calls a function when a step begins, or when its checkpoint is written."""

    def __init__(self, step, begins=None, saves=None):
        self.step, self.begins, self.saves, self.now = step, begins, saves, 0

    def on_step_begin(self, args, state, control, **kwargs):
        self.now = state.global_step + 1
        if self.now == self.step and self.begins is not None:
            self.begins()

    def state(self):
        if self.now == self.step and self.saves is not None:
            self.saves()
        return {"args": {}, "attributes": {}}


def raising(error):
    def run():
        raise error

    return run


def names(folder):
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def test_a_run_resumes_from_the_last_complete_checkpoint(tmp_path):
    uninterrupted = trainer_of(tmp_path / "uninterrupted")
    uninterrupted.train()
    first = trainer_of(tmp_path / "run")
    first.train()
    run = tmp_path / "run"
    state = run / "checkpoint-4" / "trainer_state.json"
    state.write_text(state.read_text()[:100])  # as after a power cut
    (run / "checkpoint-3" / "trainer_state.json").unlink()
    assert last_checkpoint(run) == run / "checkpoint-2"
    steps = []
    resumed = trainer_of(run, AtStep(3, begins=lambda: steps.append(names(run))))
    resumed.train(resume_from_checkpoint=True)
    assert steps == [["checkpoint-1", "checkpoint-2"]]
    assert torch.allclose(resumed.model.weight, uninterrupted.model.weight)


def test_a_run_without_a_complete_checkpoint_starts_over(tmp_path):
    trainer_of(tmp_path, max_steps=1).train()
    (tmp_path / "checkpoint-1" / "trainer_state.json").unlink()
    with pytest.raises(TrainingError, match="checkpoint-1 is incomplete"):
        trainer_of(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    resumed = trainer_of(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4


def test_a_run_whose_only_checkpoint_is_damaged_does_not_start_over(tmp_path):
    trainer_of(tmp_path, max_steps=1).train()
    state = tmp_path / "checkpoint-1" / "trainer_state.json"
    state.write_text(state.read_text()[:100])
    with pytest.raises(TrainingError, match=r"trainer_state\.json is damaged"):
        trainer_of(tmp_path).train(resume_from_checkpoint=True)
    assert state.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), KeyError("EarlyStopping")], ids=repr)
def test_an_interrupted_checkpoint_is_removed(tmp_path, error):
    with pytest.raises(type(error)):
        trainer_of(tmp_path, AtStep(2, saves=raising(error))).train()
    assert names(tmp_path) == ["checkpoint-1"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
    ids=str,
)
def test_a_full_disk_is_reported_and_the_checkpoint_is_removed(tmp_path, error):
    with pytest.raises(TrainingError, match=r"step 2 could not .* Free some space .* from checkpoint-1\."):
        trainer_of(tmp_path, AtStep(2, saves=raising(error))).train()
    assert names(tmp_path) == ["checkpoint-1"]


def test_a_complete_checkpoint_stays_if_older_ones_cannot_be_removed(tmp_path, monkeypatch):
    trainer = trainer_of(tmp_path, AtStep(2, begins=lambda: monkeypatch.setattr(*rotation)))
    rotation = ("transformers.trainer.rotate_checkpoints", lambda **_: raising(KeyboardInterrupt())())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert is_complete(tmp_path / "checkpoint-2")


def test_a_partly_overwritten_checkpoint_is_removed(tmp_path):
    trainer_of(tmp_path).train()
    resumed = trainer_of(tmp_path, AtStep(2, saves=raising(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-3", "checkpoint-4"]


@pytest.mark.parametrize("bound", [0.0, 1.0])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_does_not_reach_the_weights(tmp_path, value, bound):
    before = []

    def spoil():
        weight = trainer.model.weight
        before.append(weight.detach().clone())
        weight.register_hook(lambda gradient: torch.full_like(gradient, value))

    trainer = trainer_of(tmp_path, AtStep(2, begins=spoil), max_grad_norm=bound, save_total_limit=1)
    with pytest.raises(TrainingError, match=r"gradient norm of step 2 is (inf|nan).*checkpoint-1"):
        trainer.train()
    assert torch.equal(trainer.model.weight, before[0])
    assert names(tmp_path) == ["checkpoint-1"]


def test_all_processes_have_saved_before_a_checkpoint_is_complete(tmp_path, monkeypatch):
    trainer = trainer_of(tmp_path, max_steps=1)
    files_at_waits = []

    def wait():
        files_at_waits.append({path.name for path in (tmp_path / "checkpoint-1").glob("*")})

    monkeypatch.setattr(trainer.accelerator, "wait_for_everyone", wait)
    trainer.train()
    assert is_complete(tmp_path / "checkpoint-1")
    assert any("rng_state.pth" in files and "trainer_state.json" not in files for files in files_at_waits), (
        "transformers no longer calls _save_rng_state before it writes the trainer state"
    )


def test_early_stopping_resumes_its_count(tmp_path):
    settings = {
        "learning_rate": 0.0,  # no epoch is better than the first
        "num_train_epochs": 9,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
    }
    uninterrupted = trainer_of(tmp_path / "uninterrupted", EarlyStoppingCallback(3), **settings)
    uninterrupted.train()
    assert uninterrupted.state.epoch == 4
    first = trainer_of(tmp_path / "run", EarlyStoppingCallback(3), **settings)
    first.args.max_steps = 6  # stands for a power cut
    first.train()
    resumed = trainer_of(tmp_path / "run", EarlyStoppingCallback(3), **settings)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.epoch == 4


def test_early_stopping_may_be_added_to_a_resumed_run(tmp_path):
    trainer_of(tmp_path, max_steps=1).train()
    more = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss"}
    resumed = trainer_of(tmp_path, EarlyStoppingCallback(9), **more, load_best_model_at_end=True)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4
