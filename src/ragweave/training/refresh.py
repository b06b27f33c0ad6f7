"""A knowledge base that follows its document encoder: embedded anew in the background while that is trained.

In another process, so that the trainer neither waits nor falls with it: a snapshot of the encoder is written to disk,
``ragweave reembed`` gives the run's own knowledge base a new version, and the trainer puts that in the place of the
one it searches. Until then, and where the process dies, the old one is in use.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from ragweave.errors import KnowledgeBaseError, TrainingError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.index import KnowledgeBaseIndex

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from ragweave.encoding import TextEncoder
    from ragweave.retrieval.retriever import RagRetriever

FOLDER = "knowledge-base"
"""Where the run's own knowledge base is, below its folder."""

_KEEP = 1
"""Older versions that are kept: another process of the run may be about to open one."""


@dataclass
class _Running:
    """A refresh that has been started.

    Attributes:
        process: What does it.
        step: The step whose encoder it embeds with.
        log: What the process says.
    """

    process: subprocess.Popen[bytes]
    step: int
    log: Path


class IndexRefresh(TrainerCallback, ExportableState):
    """Embeds the passages anew with what the document encoder has become, and lets the retriever search them.

    Args:
        retriever: The retriever, which searches a knowledge base in a folder.
        encoder: The document encoder, which is being trained.
        output: The run's folder; its knowledge base is in `FOLDER` below.
        steps: How many steps lie between two refreshes; at the ends of epochs where left out.
        background: Whether training goes on meanwhile; it waits otherwise, and is then the same every time.
        options: Further options of ``ragweave reembed``, such as ``["--engine", "ray"]``.
        is_main: Whether this process starts refreshes; all processes of a run use them.

    Attributes:
        failures: How many refreshes have failed.

    Raises:
        TrainingError: The retriever does not search a knowledge base in a folder.
    """

    def __init__(
        self,
        retriever: RagRetriever,
        encoder: TextEncoder,
        output: Path,
        *,
        steps: int | None = None,
        background: bool = True,
        options: Sequence[str] = (),
        is_main: bool = True,
    ) -> None:
        index = retriever.index
        if not isinstance(index, KnowledgeBaseIndex) or not isinstance(index.base.path, Path):
            raise TrainingError(
                "Only a knowledge base in a folder can follow its encoder: build one with 'ragweave index SOURCE "
                "--output FOLDER'."
            )
        self.retriever = retriever
        self.encoder = encoder
        self.folder = output / FOLDER
        self.steps = steps
        self.background = background
        self.options = tuple(options)
        self.is_main = is_main
        self.failures = 0
        self._source = index.base
        self._workshop = output / ".refresh"
        self._running: _Running | None = None
        self._searched = 0
        """The step whose encoder made the vectors that are searched."""

    def staleness(self, step: int) -> int:
        """How many steps the encoder is ahead of the vectors that are searched."""
        return step - self._searched

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to say of the index."""
        base = self._index.base
        own = base.path == self.folder
        return {"args": {}, "attributes": {"version": base.version if own else None, "step": self._searched}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Search what the checkpoint searched from which the run goes on."""
        saved: Any = state.stateful_callbacks.get(type(self).__name__)
        if not state.global_step or not saved:
            return
        version, step = saved["attributes"]["version"], saved["attributes"]["step"]
        if version is None:
            return
        try:
            self._search(version, step)
        except KnowledgeBaseError:  # replaced since: what the checkpoint's encoder makes is the nearest to it
            self.finish(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up what is finished, and start what is due."""
        self._take_up()
        if self.steps is not None and state.global_step % self.steps == 0:
            self._start(state.global_step)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start a refresh, where these are due at the ends of epochs."""
        if self.steps is None:
            self._start(state.global_step)

    def finish(self, step: int) -> None:
        """Let the index catch up with the encoder.

        Args:
            step: The step that the encoder is at.

        Raises:
            TrainingError: The refresh failed; the message has what the process said.
        """
        self._take_up(wait=True)
        if self.staleness(step) or self._index.base.path != self.folder:
            self._begin(step)
            self._take_up(wait=True, strict=True)
        self.stop()

    def stop(self) -> None:
        """End what is running, and remove what it needed."""
        if self._running is not None:
            self._running.process.terminate()
            self._running.process.wait()
            self._running = None
        if self.is_main:
            shutil.rmtree(self._workshop, ignore_errors=True)

    @property
    def _index(self) -> KnowledgeBaseIndex:
        index = self.retriever.index
        if not isinstance(index, KnowledgeBaseIndex):
            raise TrainingError("The retriever was given another index while the model was trained.")
        return index

    def _start(self, step: int) -> None:
        """Start a refresh, unless one is running: then the next is started where it is due again."""
        if self._running is None:
            self._begin(step)
        if not self.background:
            self._take_up(wait=True)

    def _begin(self, step: int) -> None:
        if not self.is_main:
            return
        snapshot, log = self._workshop / f"encoder-{step}", self._workshop / "log"
        self.encoder.save_pretrained(snapshot)
        command = [sys.executable, "-m", "ragweave", "reembed", str(self._source.path)]
        command += ["--version", self._source.version, "--model", str(snapshot), "--output", str(self.folder)]
        command += ["--keep", str(_KEEP), "--json", *self.options]
        threads = str(max(1, (os.cpu_count() or 2) // 2))  # the trainer is at work beside it
        with log.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 - the command is our own
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={"OMP_NUM_THREADS": threads, **os.environ},
            )
        self._running = _Running(process, step, log)

    def _take_up(self, *, wait: bool = False, strict: bool = False) -> None:
        """Search what a finished refresh has written; of all processes at the same step.

        Args:
            wait: Wait for one that is running.
            strict: Raise an error where it has failed, and not a warning.
        """
        ended = self._ended(wait=wait) if self.is_main else None
        news = [ended]
        broadcast_object_list(news)
        if news[0] is None:
            return
        step, failure = news[0]
        if failure is None:
            self._search(None, step)
            return
        self.failures += 1
        sentence = (
            f"The index could not be refreshed with the encoder of step {step} ({failure}); "
            f"that of step {self._searched} stays in use."
        )
        if strict:
            raise TrainingError(
                f"{sentence} Run 'ragweave reembed' with the document encoder that was saved."
            )
        warnings.warn(sentence, UserWarning, stacklevel=2)

    def _ended(self, *, wait: bool) -> tuple[int, str | None] | None:
        """The step of a refresh that has ended, and why it failed if it did."""
        running = self._running
        if running is None:
            return None
        code = running.process.wait() if wait else running.process.poll()
        if code is None:
            return None
        self._running = None
        said = running.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        shutil.rmtree(self._workshop / f"encoder-{running.step}", ignore_errors=True)
        failure = None if code == 0 else said[-1] if said else f"it ended with code {code}"
        return running.step, failure

    def _search(self, version: str | None, step: int) -> None:
        """Put a version of the run's knowledge base in the place of what is searched."""
        base = KnowledgeBase.open(self.folder, version=version)
        self.retriever.index = self._index.over(base)
        self._searched = step
