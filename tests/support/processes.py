"""``ragweave`` in processes that need not import torch: they are copies of one that has."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragweave.cli import main
from tests.support.waiting import PATIENCE

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "ragweave.knowledge.ingest.folder_writer",
        "ragweave.serving.app",
        "ragweave.training.index_refresh",
        "tests.support.training",
        "transformers.models.bert.modeling_bert",
        "transformers.models.llama.modeling_llama",
    ]
)


class Command:
    """A running command.

    Args:
        arguments: Its arguments.
        folder: Where it writes its output.
        stdin: What it reads as its standard input.
        descriptors: How many files it may open.
    """

    def __init__(
        self, *arguments: object, folder: Path, stdin: Path | None = None, descriptors: int = 1024
    ) -> None:
        self._outputs = [folder / "stdout.txt", folder / "stderr.txt"]
        for path in self._outputs:
            path.touch()
        self._process = CONTEXT.Process(
            target=_run, args=(list(map(str, arguments)), stdin, self._outputs, descriptors)
        )
        self._process.start()

    @property
    def stdout(self) -> str:
        return self._outputs[0].read_text("utf-8")

    @property
    def stderr(self) -> str:
        return self._outputs[1].read_text("utf-8")

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid or 0, number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit code, negative for a signal."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"it still runs; {self.stderr}"
        return self._process.exitcode


@contextmanager
def command(*arguments: object, folder: Path, **options: Any) -> Iterator[Command]:
    """Run a command within a context; arguments as of `Command`."""
    running = Command(*arguments, folder=folder, **options)
    try:
        yield running
    finally:
        running._process.kill()
        running._process.join()


def _run(arguments: list[str], stdin: Path | None, outputs: list[Path], descriptors: int) -> None:
    if stdin is not None:
        os.dup2(os.open(stdin, os.O_RDONLY), 0)
        sys.stdin = os.fdopen(0, encoding="utf-8")
    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the background jobs of a shell ignore it
    sys.argv = ["ragweave", *arguments]
    main()
