"""Questions to learn, arguments of a short run, and refreshes that start no process."""

from __future__ import annotations

import torch
from typer.testing import CliRunner

from ragweave import RagPipeline
from ragweave.cli import app
from ragweave.training.arguments import RagTrainingArguments
from ragweave.types import Example

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


class CommandInProcess:
    """Takes the place of `subprocess.Popen` where a refresh waits for its command: it runs in the tests' process.

    A process of its own would import torch and transformers first, which takes longer than the rest of the test.
    """

    def __init__(self, command, *, stdout, **_):
        arguments = command[command.index("reembed") :]
        with torch.random.fork_rng():
            result = CliRunner().invoke(app, arguments)
        stdout.write(result.output.encode())
        self.returncode = result.exit_code

    def wait(self, timeout=None):
        return self.returncode

    poll = wait
