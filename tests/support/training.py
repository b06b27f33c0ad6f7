"""Questions to learn, arguments of a short run, and refreshes that start no process."""

from __future__ import annotations

import json
import os
import sys

import torch

from ragweave import RagPipeline
from ragweave.errors import RagweaveError
from ragweave.training import refresh_subprocess
from ragweave.training.arguments import RagTrainingArguments
from ragweave.training.refresh_subprocess import refresh
from ragweave.types import Example
from tests.support.processes import CONTEXT

EXAMPLES = [
    Example("1", "Where is Lima?", ("Peru", "in Peru"), ("peru.txt",)),
    Example("2", "What is the capital of Kenya?", ("Nairobi",), ("kenya.txt",)),
    Example("3", "What is the capital of Chile?", ("Santiago",), ("chile.txt",)),
    Example("4", "Which ocean is at the coast of Kenya?", ("the Indian Ocean",), ("kenya.txt",)),
]


def pipeline_of(path, kb):
    return RagPipeline.from_pretrained(path, knowledge_base=kb, dtype="float32")


def arguments(folder, **more):
    return RagTrainingArguments(
        output_dir=str(folder),
        **{
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "num_train_epochs": 1,
            "report_to": [],
            "save_strategy": "no",
            "use_cpu": True,
            "seed": 3,
            "disable_tqdm": True,
            "logging_steps": 1,
            "eval_max_new_tokens": 4,
            **more,
        },
    )


def weights(model, part):
    return {name: weight.detach().clone() for name, weight in getattr(model, part).named_parameters()}


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


class RefreshInProcess:
    """Takes the place of `subprocess.Popen` if a refresh waits for its process: it runs in the tests' process.

    A process of its own would import torch and transformers first, which takes longer than the rest of the test.
    """

    def __init__(self, command, *, stdout, **_):
        self.returncode = 0
        try:
            with torch.random.fork_rng():
                refresh(**json.loads(command[-1]))
        except RagweaveError as error:
            stdout.write(str(error).encode())
            self.returncode = 1

    def wait(self, timeout=None):
        return self.returncode

    poll = wait


class RefreshInCopy:
    """Takes the place of `subprocess.Popen` for a refresh: its process is a copy of one that has imported torch."""

    def __init__(self, command, *, stdout, **_):
        self._process = CONTEXT.Process(target=_refresh, args=(command[-1], stdout.name))
        self._process.start()
        self.kill, self.terminate = self._process.kill, self._process.terminate

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self.returncode

    def wait(self, timeout=None):
        self._process.join(timeout)
        return self.returncode


def _refresh(job, log):
    with open(log, "ab") as file:  # noqa: PTH123
        os.dup2(file.fileno(), 2)
    sys.argv = ["", str(os.getppid()), job]
    refresh_subprocess.main()
