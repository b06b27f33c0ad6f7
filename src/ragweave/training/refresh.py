"""A knowledge base that follows its document encoder: embedded anew in the background while that is trained.

In another process, so that the trainer neither waits nor falls with it: a snapshot of the encoder is written to disk,
``ragweave reembed`` gives the run's own knowledge base a new version, and the trainer puts that in the place of the
one it searches. Until then, and where that fails in any way, the old one is in use.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ragweave.errors import KnowledgeBaseError, TrainingError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.transaction import discard_staged
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.retrieval.rag_retriever import RagRetriever

FOLDER = "knowledge-base"
"""Where the run's own knowledge base is, below its folder."""

DOCUMENT_ENCODER = "document-encoder"
"""Where a trained document encoder is, below the folder of its model."""

_PATIENCE = 5.0  # seconds that a process has after each signal to end


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


@dataclass(frozen=True)
class _Outcome:
    """What has become of a refresh.

    Attributes:
        step: The step whose encoder it was to embed with.
        version: The version that it has written.
        failure: Why there is none.
    """

    step: int
    version: str | None = None
    failure: str | None = None


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
        # Snapshots say it. Were it measured for the first of them, in training, dropout would draw random numbers for
        # it, and a resumed run would have others from there on.
        _ = encoder.dimension
        self._output = output
        self._workshop = output / ".refresh"
        self._running: _Running | None = None
        self._not_started: _Outcome | None = None
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
        if version is not None:
            there = [self.is_main and self._has(version)]
            broadcast_object_list(there)
            if there[0]:
                self._search(version, step)
            else:  # removed by others: what the checkpoint's encoder makes is the nearest to it
                self._catch_up(state.global_step)
        # One that was due when the checkpoint was written was not finished, or not begun.
        due = state.global_step % self.steps == 0 if self.steps else float(state.epoch or 0.5).is_integer()
        if due and self.staleness(state.global_step):
            self._start(state.global_step)

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

        Warns:
            UserWarning: The refresh failed: the index is behind. The message has what the process said, and the
                command that brings it up to date when the document encoder has been saved.
        """
        self._catch_up(step, advice=True)
        self.stop()

    def stop(self) -> None:
        """End what is running, and remove what it needed and what it has prepared."""
        running, self._running = self._running, None
        if running is not None:
            _end(running.process)
            with suppress(KnowledgeBaseError):
                discard_staged(self.folder)
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

    def _catch_up(self, step: int, *, advice: bool = False) -> None:
        """Search what the encoder makes as it is at a step, and leave that in force.

        Args:
            step: The step.
            advice: Say what is to be done where that fails.
        """
        self._take_up(wait=True)
        base = self._index.base
        if self.staleness(step) or base.path != self.folder or not self._is_in_force(base.version):
            self._begin(step)
        self._take_up(wait=True, advice=advice)

    def _begin(self, step: int) -> None:
        """Start a process; where that fails, the others of the run hear of it when they ask for what has ended."""
        if not self.is_main:
            return
        snapshot, log = self._workshop / f"encoder-{step}", self._workshop / "log"
        try:
            self.encoder.save_pretrained(snapshot)
            with log.open("wb") as file:
                process = subprocess.Popen(  # noqa: S603 - the command is our own
                    self._command(snapshot), stdout=file, stderr=subprocess.STDOUT, env=_environment()
                )
        except Exception as error:  # each library has its own for a full disk
            shutil.rmtree(snapshot, ignore_errors=True)
            self._not_started = _Outcome(step, failure=f"it could not be started: {error}")
            return
        self._running = _Running(process, step, log)

    def _command(self, snapshot: Path) -> list[str]:
        """What embeds the passages that are searched with a snapshot of the encoder."""
        base = self._index.base
        command = [sys.executable, "-m", "ragweave.training.child", str(os.getpid())]
        command += ["reembed", str(base.path), "--version", base.version, "--output", str(self.folder)]
        # It is called what it will be when it is saved: snapshots do not stay.
        command += ["--model", str(snapshot), "--name", str(self._output / DOCUMENT_ENCODER), "--json"]
        command += ["--keep", "0", *self.options]
        # Other processes search the version of now until they hear of the new one; checkpoints written meanwhile
        # name it too.
        searched = {base.version} if base.path == self.folder else set()
        for version in sorted(searched | _named_by_checkpoints(self._output)):
            command += ["--keep-version", version]
        return command

    def _take_up(self, *, wait: bool = False, advice: bool = False) -> None:
        """Search what a finished refresh has written; of all processes at the same step.

        Args:
            wait: Wait for one that is running.
            advice: Say what is to be done where it has failed.
        """
        news = [self._ended(wait=wait) if self.is_main else None]
        broadcast_object_list(news)
        outcome = news[0]
        if outcome is None:
            return
        if outcome.version is not None:
            self._search(outcome.version, outcome.step)
            return
        self.failures += 1
        sentence = (
            f"The index could not be refreshed with the encoder of step {outcome.step} ({outcome.failure}); "
            f"that of step {self._searched} stays in use."
        )
        if advice:
            sentence += (
                " It is behind the document encoder. When the model has been saved, bring it up to date with: "
                + self._by_hand()
            )
        warnings.warn(sentence, UserWarning, stacklevel=2)

    def _by_hand(self) -> str:
        """The command that embeds what is searched with the document encoder that was saved."""
        base = self._index.base
        command = ["ragweave", "reembed", str(base.path)]
        if base.version in base.version_names():  # 'ragweave compact' may have removed it
            command += ["--version", base.version]
        command += ["--model", str(self._output / DOCUMENT_ENCODER), "--output", str(self.folder)]
        return shlex.join(command)

    def _ended(self, *, wait: bool) -> _Outcome | None:
        """What has become of a refresh that has ended."""
        if self._not_started is not None:
            outcome, self._not_started = self._not_started, None
            return outcome
        running = self._running
        if running is None:
            return None
        code = running.process.wait() if wait else running.process.poll()
        if code is None:
            return None
        self._running = None
        shutil.rmtree(self._workshop / f"encoder-{running.step}", ignore_errors=True)
        if code:
            return _Outcome(running.step, failure=_last_line(running.log) or f"it ended with code {code}")
        try:
            return _Outcome(running.step, version=KnowledgeBase.open(self.folder).version)
        except KnowledgeBaseError as error:
            return _Outcome(running.step, failure=str(error))

    def _search(self, version: str, step: int) -> None:
        """Put a version of the run's knowledge base in the place of what is searched."""
        base = KnowledgeBase.open(self.folder, version=version)
        self.retriever.index = self._index.over(base)
        self._searched = step

    def _has(self, version: str) -> bool:
        """Whether the run's knowledge base has a version that can be searched."""
        try:
            KnowledgeBase.open(self.folder, version=version)
        except KnowledgeBaseError:
            return False
        return True

    def _is_in_force(self, version: str) -> bool:
        """Whether who opens the run's knowledge base gets this version, and not what a run that was further left."""
        try:
            return KnowledgeBase.open(self.folder).version == version
        except KnowledgeBaseError:
            return False


def _environment() -> dict[str, str]:
    """The environment of a refresh, which computes on half of the cores: the trainer is at work beside it."""
    threads = "OMP_NUM_THREADS"
    environment = dict(os.environ)
    # torchrun sets it to 1 for its own processes, whatever the user wants.
    if threads not in environment or "TORCHELASTIC_RUN_ID" in environment:
        environment[threads] = str(max(1, (os.cpu_count() or 2) // 2))
    return environment


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, which has some time to tidy up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
            return
    process.kill()
    process.wait()


def _last_line(log: Path) -> str | None:
    """What a process said last."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return None
    return lines[-1] if lines else None


def _named_by_checkpoints(output: Path) -> set[str]:
    """The versions of a run's knowledge base that are searched again when it goes on from one of its checkpoints."""
    named: set[str] = set()
    for path in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}"):
        with suppress(OSError, ValueError, KeyError, TypeError):  # of what cannot be gone on from
            state = json.loads(path.read_text(encoding="utf-8"))
            version = state["stateful_callbacks"][IndexRefresh.__name__]["attributes"]["version"]
            if version is not None:
                named.add(version)
    return named
