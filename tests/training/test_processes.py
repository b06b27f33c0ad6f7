"""Several processes of one run (gloo): they learn what one process learns, and share their files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from multiprocessing.process import BaseProcess as Process

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from ragweave import KnowledgeBase
from ragweave.cli import app
from ragweave.encoders.text_encoder import TextEncoder
from ragweave.training.trainer import RagTrainer
from tests.support.databases import free_port
from tests.support.pipelines import save_rag_model
from tests.support.processes import CONTEXT
from tests.support.training import EXAMPLES, RefreshInProcess, pipeline_of
from tests.support.waiting import PATIENCE, wait_until

QUESTIONS = [*EXAMPLES, *EXAMPLES[::-1]]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory, tiny_encoder_path):
    """A model without dropout, whose random numbers would differ between processes."""
    folder = save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for part in ("question_encoder", "generator"):
        for name in config[part]:
            if "dropout" in name:
                config[part][name] = 0.0
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    lines = [
        json.dumps({"id": str(number), "question": example.question, "answers": example.answers})
        for number, example in enumerate(QUESTIONS)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def train_as(rank, port, arguments, output, reached):
    """Train as one of two processes, as torchrun would start them; its third step may wait to be killed."""
    sizes = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({name: str(size) for name, size in sizes.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    training_step = RagTrainer.training_step

    def step(self, *args, **kwargs):
        if reached is not None and self.state.global_step == 2:
            (reached / str(rank)).touch()
            signal.pause()
        return training_step(self, *args, **kwargs)

    RagTrainer.training_step, subprocess.Popen = step, RefreshInProcess
    result = CliRunner().invoke(app, arguments)
    output.write_text(f"{result.output}{result.exception or ''}", encoding="utf-8")
    sys.exit(result.exit_code)


class Runs:
    """Runs ``ragweave train``: in this process, or in several."""

    def __init__(self, folder, model, kb, data):
        self.folder = folder
        self.options = ["--model", str(model), "--kb", str(kb), "--data", str(data), "--n-docs", "2"]

    def arguments(self, name, *options, questions, yaml_options=None):
        config = self.folder / f"{name}.yaml"
        # AdamW would turn rounding errors of zero gradients into steps.
        settings = {"logging_steps": 1, "lr_scheduler_type": "constant", "optim": "sgd"}
        config.write_text(yaml.safe_dump({**settings, **(yaml_options or {})}), encoding="utf-8")
        files = ["--output", str(self.folder / name), "--config", str(config)]
        steps = ["--epochs", "2", "--learning-rate", "0.1", "--batch-size", str(questions)]
        return ["train", *self.options, *files, *steps, *options]

    def run(self, *args, **kwargs):
        """Train in this process; another one would do the same, but import torch first."""
        result = CliRunner().invoke(app, self.arguments(*args, **kwargs))
        assert result.exit_code == 0, result.output

    def run_with_torchrun(self, *args, **kwargs):
        """Train in two processes that torch starts."""
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        result = subprocess.run(
            [sys.executable, "-m", *launcher, "-m", "ragweave", *self.arguments(*args, **kwargs)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
        )
        assert result.returncode == 0, result.stdout

    def start_two(self, name, *options, reached=None, **kwargs):
        """Start two processes that need not import torch: they are copies of one that has."""
        arguments, port = self.arguments(name, *options, **kwargs), free_port()
        processes = [
            CONTEXT.Process(target=train_as, args=(rank, port, arguments, self.output(name, rank), reached))
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        return processes

    def run_two(self, name, *options, **kwargs):
        """Train in two processes, and return what they print."""
        processes = self.start_two(name, *options, **kwargs)
        for process in processes:
            process.join(PATIENCE)
        output = "".join(self.output(name, rank).read_text("utf-8") for rank in range(2))
        assert [process.exitcode for process in processes] == [0, 0], output
        return output

    def output(self, name, rank):
        return self.folder / f"{name}-{rank}.txt"

    def weights(self, name):
        return load_file(self.folder / name / "model.safetensors")

    def losses(self, name):
        folders = sorted((self.folder / name).glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
        state = json.loads((folders[-1] / "trainer_state.json").read_text("utf-8"))
        return [row["loss"] for row in state["log_history"] if "loss" in row]


SAVING = {"save_strategy": "steps", "save_steps": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, model_path, kb, data):
    return Runs(tmp_path_factory.mktemp("runs"), model_path, kb, data)


@pytest.fixture(scope="module")
def two(runs):
    """The output of an uninterrupted run of two processes."""
    return runs.run_two("two", questions=2, yaml_options=SAVING)


def assert_alike(first, second, tolerance):
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert torch.allclose(weight, second[name], atol=tolerance), name


def test_two_processes_learn_what_one_does_with_twice_the_batch(runs, two):
    runs.run("one", questions=4)
    assert two.count("trained on") == 1  # the first process alone reports
    assert len(runs.losses("one")) == 4
    assert runs.losses("two") == pytest.approx(runs.losses("one"), rel=1e-3)
    assert_alike(runs.weights("one"), runs.weights("two"), 1e-4)


@pytest.mark.slow  # three processes import torch
def test_processes_that_torch_starts_learn_the_same(runs, two):
    runs.run_with_torchrun("torchrun", questions=2, yaml_options=SAVING)
    assert_alike(runs.weights("two"), runs.weights("torchrun"), 1e-5)


def test_two_killed_processes_resume_and_end_like_an_uninterrupted_run(runs, two, tmp_path):
    killed = runs.start_two("killed", reached=tmp_path, questions=2, yaml_options=SAVING)
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2 or not all(map(Process.is_alive, killed)))
    finally:
        for process in killed:
            process.kill()
            process.join()
    assert not list(runs.folder.glob("killed-*.txt"))  # neither came to an end
    runs.run_two("killed", "--resume", questions=2, yaml_options=SAVING)
    assert_alike(runs.weights("two"), runs.weights("killed"), 1e-5)


def test_two_processes_refresh_one_index_end_to_end(runs, monkeypatch):
    options = ("--end-to-end", "--refresh-steps", "2")
    waits = {"refresh_in_background": False}
    runs.run_two("two-end-to-end", *options, questions=2, yaml_options=waits)
    monkeypatch.setattr(subprocess, "Popen", RefreshInProcess)
    runs.run("one-end-to-end", *options, questions=4, yaml_options=waits)
    # In the last steps both search what the refresh after the second has made.
    assert runs.losses("two-end-to-end") == pytest.approx(runs.losses("one-end-to-end"), rel=1e-3)
    assert_alike(runs.weights("one-end-to-end"), runs.weights("two-end-to-end"), 1e-4)
    first, second = (
        KnowledgeBase.open(
            runs.folder / name / "knowledge-base",
            encoder=TextEncoder.from_pretrained(runs.folder / name / "document-encoder"),
        )
        for name in ("one-end-to-end", "two-end-to-end")
    )
    assert np.allclose(first.vectors_of([0, 1, 2]), second.vectors_of([0, 1, 2]), atol=1e-3)
    assert pipeline_of(runs.folder / "two-end-to-end", second)("Where is Lima?", max_new_tokens=3).passages
