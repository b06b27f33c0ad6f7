"""Several processes of one run (gloo): they learn what one process learns, and share their files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from ragweave import KnowledgeBase
from ragweave.encoders.text_encoder import TextEncoder
from tests.support.pipelines import build_knowledge_base, save_rag_model
from tests.support.training import EXAMPLES, pipeline_of

QUESTIONS = [*EXAMPLES, *EXAMPLES[::-1]]


@pytest.fixture(scope="module")
def kb(tmp_path_factory, tiny_encoder_path):
    return build_knowledge_base(tmp_path_factory.mktemp("base"), tiny_encoder_path)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory, tiny_encoder_path):
    """A model without dropout, whose random numbers would be others in each process."""
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
        json.dumps({"id": str(place), "question": own.question, "answers": own.answers})
        for place, own in enumerate(QUESTIONS)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Runs:
    """Starts ``ragweave train`` in any number of processes."""

    def __init__(self, folder, model, kb, data):
        self.folder = folder
        self.options = ["--model", str(model), "--kb", str(kb), "--data", str(data), "--n-docs", "2"]

    def start(self, name, *options, processes, questions, yaml_options=None):
        config = self.folder / f"{name}.yaml"
        # Not AdamW, which makes steps of rounding errors where a gradient is nought.
        settings = {"logging_steps": 1, "lr_scheduler_type": "constant", "optim": "sgd"}
        config.write_text(yaml.safe_dump({**settings, **(yaml_options or {})}), encoding="utf-8")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
        command = [sys.executable, *(launcher if processes > 1 else ["-m"]), "ragweave", "train"]
        command += [*self.options, "--output", str(self.folder / name), "--config", str(config)]
        command += ["--epochs", "2", "--learning-rate", "0.1", "--batch-size", str(questions), *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *args, **kwargs):
        process = self.start(*args, **kwargs)
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
        return said

    def weights(self, name):
        return load_file(self.folder / name / "model.safetensors")

    def losses(self, name):
        folders = sorted((self.folder / name).glob("checkpoint-*"), key=lambda own: int(own.name[11:]))
        state = json.loads((folders[-1] / "trainer_state.json").read_text("utf-8"))
        return [own["loss"] for own in state["log_history"] if "loss" in own]


@pytest.fixture
def runs(tmp_path, model_path, kb, data):
    return Runs(tmp_path, model_path, kb, data)


def assert_alike(first, second, tolerance):
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert torch.allclose(weight, second[name], atol=tolerance), name


def test_two_processes_learn_what_one_does_with_twice_the_batch(runs):
    runs.run("one", processes=1, questions=4)
    said = runs.run("two", processes=2, questions=2)
    assert said.count("trained on") == 1  # the first process alone reports
    assert len(runs.losses("one")) == 4
    assert runs.losses("two") == pytest.approx(runs.losses("one"), rel=1e-3)
    assert_alike(runs.weights("one"), runs.weights("two"), 1e-4)


def test_two_processes_that_were_killed_end_where_an_uninterrupted_run_does(runs):
    saving = {"save_strategy": "steps", "save_steps": 1}
    runs.run("whole", processes=2, questions=2, yaml_options=saving)
    killed = runs.start("run", processes=2, questions=2, yaml_options=saving)
    end = time.monotonic() + 100
    while not [*(runs.folder / "run").glob("checkpoint-[12]/trainer_state.json")] and time.monotonic() < end:
        time.sleep(0.01)
    for process in [*psutil.Process(killed.pid).children(recursive=True), killed]:
        process.kill()
    said, _ = killed.communicate()
    assert "trained on" not in said
    runs.run("run", "--resume", processes=2, questions=2, yaml_options=saving)
    assert_alike(runs.weights("whole"), runs.weights("run"), 1e-5)


def test_two_processes_refresh_one_index_end_to_end(runs):
    options = ("--end-to-end", "--refresh-steps", "2")
    waits = {"refresh_in_background": False}
    runs.run("one", *options, processes=1, questions=4, yaml_options=waits)
    runs.run("two", *options, processes=2, questions=2, yaml_options=waits)
    # In the last steps both search what the refresh after the second has made.
    assert runs.losses("two") == pytest.approx(runs.losses("one"), rel=1e-3)
    assert_alike(runs.weights("one"), runs.weights("two"), 1e-4)
    first, second = (
        KnowledgeBase.open(
            runs.folder / name / "knowledge-base",
            encoder=TextEncoder.from_pretrained(runs.folder / name / "document-encoder"),
        )
        for name in ("one", "two")
    )
    assert np.allclose(first.vectors_of([0, 1, 2]), second.vectors_of([0, 1, 2]), atol=1e-3)
    assert pipeline_of(runs.folder / "two", second)("Where is Lima?", max_new_tokens=3).passages
