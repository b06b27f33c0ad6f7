"""End-to-end training: the document encoder, and refreshes of the index with it.

A refresh embeds all passages in another process, so that training neither waits for it nor fails with it. A snapshot
of the encoder is saved, `ragweave.training.refresh_subprocess` gives the run's own knowledge base a new version, and
the trainer switches to it. Until then, and if the refresh fails, the previous version is searched.
"""

from __future__ import annotations

import copy
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
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ragweave.encoders.text_encoder import TextEncoder, with_title
from ragweave.errors import (
    ConfigurationError,
    EncoderMismatchError,
    KnowledgeBaseError,
    ModelNotFoundError,
    TrainingError,
)
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.transaction import discard_staged
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
from ragweave.modeling.generation import RagForGeneration
from ragweave.retrieval.rag_retriever import RagRetriever
from ragweave.training import refresh_subprocess
from ragweave.training.arguments import RagTrainingArguments
from ragweave.training.resumable_trainer import broadcast

KNOWLEDGE_BASE_FOLDER = "knowledge-base"
"""The run's own knowledge base, in its output folder."""

DOCUMENT_ENCODER_FOLDER = "document-encoder"
"""The trained document encoder, in the folder of its model."""

_TERMINATION_TIME = 5.0  # seconds that a process has to end after each signal


def load_document_encoder(
    base: KnowledgeBase, question_encoder: TextEncoder, name: str | None = None
) -> TextEncoder:
    """Load the encoder that embedded the passages, with weights of its own.

    Args:
        base: The knowledge base.
        question_encoder: The encoder of the questions; it is copied if it embedded the passages as well.
        name: Folder or hub name of the document encoder; by default the one that the knowledge base names.

    Raises:
        ModelNotFoundError: It cannot be loaded.
        EncoderMismatchError: Another encoder embedded the passages.
    """
    record = base.manifest.encoder
    if name is None and question_encoder.fingerprint == record.fingerprint:
        model = copy.deepcopy(question_encoder.model).requires_grad_(True)
        return TextEncoder(
            model=model,
            tokenizer=question_encoder.tokenizer,
            name=record.name,
            pooling=question_encoder.pooling,
            normalize=question_encoder.normalize,
            max_length=record.max_length,  # questions may have another limit than passages
        )
    try:
        encoder = TextEncoder.from_pretrained(name or record.name, max_length=record.max_length)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"The encoder of the knowledge base, '{name or record.name}', could not be loaded: name its folder "
            "with --document-encoder (document_encoder=...)."
        ) from error
    try:
        base.check_encoder(encoder)
    except EncoderMismatchError as error:
        raise EncoderMismatchError(
            f"{error} In training, --document-encoder (document_encoder=...) names the encoder of the passages."
        ) from error
    return encoder


def train_document_encoder(model: RagForGeneration, retriever: RagRetriever, encoder: TextEncoder) -> None:
    """Let a model embed the retrieved passages again when it scores them, so that their encoder gets a gradient.

    Args:
        model: The model.
        retriever: Its retriever.
        encoder: The document encoder, whose weights become part of the model.

    Raises:
        ConfigurationError: The two encoders differ in pooling or normalisation.
    """
    pooling, normalize = model.rag.question_pooling, model.config.question_encoder_normalize
    if (pooling, normalize) != (encoder.pooling, encoder.normalize):
        raise ConfigurationError(
            f"The question encoder has pooling '{pooling}' {'with' if normalize else 'without'} normalisation, the "
            f"document encoder '{encoder.pooling}' {'with' if encoder.normalize else 'without'}: choose encoders "
            "that agree in both."
        )
    model.set_context_encoder_for_training(encoder.model.to(model.device))
    # Not a nested function: a data loader's processes may have to pickle the retriever.
    retriever.set_ctx_encoder_tokenizer(partial(_tokenize_passages, encoder))


def _tokenize_passages(
    encoder: TextEncoder, titles: Sequence[str], texts: Sequence[str], **options: Any
) -> Any:
    """Tokenize passages as the knowledge base did when it embedded them."""
    passages = [with_title(title, text) for title, text in zip(titles, texts, strict=True)]
    return encoder.tokenizer(passages, max_length=encoder.max_length, **options)


@dataclass
class _Running:
    """A running refresh with the encoder of a step."""

    process: subprocess.Popen[bytes]
    step: int
    log: Path


@dataclass(frozen=True)
class _Result:
    """The version that a refresh with the encoder of a step has written, or why it failed."""

    step: int
    version: str | None = None
    failure: str | None = None


class IndexRefresh(TrainerCallback, ExportableState):
    """Refreshes the index with the current document encoder during training.

    Args:
        retriever: The retriever; it searches a knowledge base in a folder.
        encoder: The document encoder, which is being trained.
        args: Arguments of the run.

    Attributes:
        failures: Number of failed refreshes.

    Raises:
        TrainingError: The retriever does not search a knowledge base in a folder.
    """

    def __init__(self, retriever: RagRetriever, encoder: TextEncoder, args: RagTrainingArguments) -> None:
        index = retriever.index
        if not isinstance(index, KnowledgeBaseIndex) or not isinstance(index.base.path, Path):
            raise TrainingError(
                "Only the index of a knowledge base in a folder can be refreshed: build one with 'ragweave index "
                "SOURCE --output FOLDER' (KnowledgeBase.build)."
            )
        self.retriever = retriever
        self.encoder = encoder
        self.args = args
        self.output = Path(str(args.output_dir))
        self.folder = self.output / KNOWLEDGE_BASE_FOLDER
        self.is_main = (
            args.process_index == 0
        )  # starts the refreshes; all processes switch to the new version
        self.failures = 0
        # Cached now because snapshots record it. It takes a forward pass, whose dropout would change the random
        # numbers of a resumed run.
        _ = encoder.dimension
        self._temporary = self.output / ".refresh"
        self._running: _Running | None = None
        self._failed_to_start: _Result | None = None
        self._searched_step = 0  # the step whose encoder embedded the vectors that are searched

    def staleness(self, step: int) -> int:
        """Number of steps that the searched vectors are behind the encoder."""
        return step - self._searched_step

    def state(self) -> dict[str, Any]:
        """The part of a checkpoint's trainer state that describes the index."""
        base = self._index.base
        version = base.version if base.path == self.folder else None
        return {"args": {}, "attributes": {"version": version, "step": self._searched_step}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Switch to the version that was searched when the checkpoint of a resumed run was saved."""
        saved: Any = state.stateful_callbacks.get(type(self).__name__)
        if not state.global_step or not saved:
            return
        version, step = saved["attributes"]["version"], saved["attributes"]["step"]
        if version is not None:
            if broadcast(self.is_main and self._open(version) is not None):
                self._switch_to(version, step)
            else:  # deleted by others; a refresh with the checkpoint's encoder is closest to it
                self._refresh_now(state.global_step)
        # A refresh that was due when the checkpoint was saved was not complete, or not started.
        steps = self.args.refresh_steps
        due = state.global_step % steps == 0 if steps else float(state.epoch or 0.5).is_integer()
        if due and self.staleness(state.global_step):
            self._start_due(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Switch to the version of a completed refresh, and start one that is due."""
        self._finish_running()
        if self.args.refresh_steps is not None and state.global_step % self.args.refresh_steps == 0:
            self._start_due(state.global_step)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start a refresh if they are due after epochs."""
        if self.args.refresh_steps is None:
            self._start_due(state.global_step)

    def finish(self, step: int) -> None:
        """Refresh the index with the final encoder.

        Args:
            step: The step of the encoder.

        Warns:
            UserWarning: The refresh failed. The message contains the error, and the command that refreshes the index
                after the document encoder was saved.
        """
        self._refresh_now(step, advise=True)
        self.stop()

    def stop(self) -> None:
        """End a running refresh, and remove its files."""
        running, self._running = self._running, None
        if running is not None:
            _terminate(running.process)
            with suppress(KnowledgeBaseError):
                discard_staged(self.folder)
        if self.is_main:
            shutil.rmtree(self._temporary, ignore_errors=True)

    @property
    def _index(self) -> KnowledgeBaseIndex:
        index = self.retriever.index
        if not isinstance(index, KnowledgeBaseIndex):
            raise TrainingError("The retriever's index was replaced during training: leave it unchanged.")
        return index

    def _start_due(self, step: int) -> None:
        """Start a refresh, unless one is running: then the next one starts when it is due."""
        if self._running is None:
            self._start(step)
        if not self.args.refresh_in_background:
            self._finish_running(wait=True)

    def _refresh_now(self, step: int, *, advise: bool = False) -> None:
        """Bring the searched index, and the current version of the run's knowledge base, up to a step."""
        self._finish_running(wait=True)
        base = self._index.base
        current = (
            self._open()
        )  # not the searched version if a later part of an interrupted run wrote another one
        if (
            self.staleness(step)
            or current is None
            or (base.path, base.version) != (self.folder, current.version)
        ):
            self._start(step)
        self._finish_running(wait=True, advise=advise)

    def _start(self, step: int) -> None:
        """Start a process; if that fails, `_finish_running` tells all processes of the run."""
        if not self.is_main:
            return
        snapshot, log = self._temporary / f"encoder-{step}", self._temporary / "log"
        try:
            self.encoder.save_pretrained(snapshot)
            with log.open("wb") as file:
                process = subprocess.Popen(  # noqa: S603 - our own command
                    self._command(snapshot), stdout=file, stderr=subprocess.STDOUT, env=_environment()
                )
        except Exception as error:  # each library has its own exception for a full disk
            shutil.rmtree(snapshot, ignore_errors=True)
            self._failed_to_start = _Result(step, failure=f"it could not be started: {error}")
            return
        self._running = _Running(process, step, log)

    def _command(self, snapshot: Path) -> list[str]:
        """The command that embeds the searched passages with a snapshot of the encoder."""
        base, ray = self._index.base, self.args.refresh_engine == "ray"
        # Other processes search the current version until they switch, and new checkpoints refer to it.
        searched = {base.version} if base.path == self.folder else set()
        job = refresh_subprocess.RefreshJob(
            knowledge_base=str(base.path),
            version=base.version,
            output=str(self.folder),
            keep_versions=sorted(searched | _versions_of_checkpoints(self.output)),
            encoder=str(snapshot),
            encoder_name=str(
                self.output / DOCUMENT_ENCODER_FOLDER
            ),  # where it is saved; snapshots are deleted
            ray_workers=self.args.refresh_workers if ray else None,
            ray_address=self.args.refresh_address if ray else None,
            device=None if ray else self.args.refresh_device,
        )
        return [sys.executable, "-m", refresh_subprocess.__name__, str(os.getpid()), json.dumps(asdict(job))]

    def _finish_running(self, *, wait: bool = False, advise: bool = False) -> None:
        """Switch to the version of a completed refresh, in all processes at the same step.

        Args:
            wait: Wait for a running refresh.
            advise: If the refresh failed, add the command that repeats it to the warning.
        """
        result = broadcast(self._result(wait=wait) if self.is_main else None)
        if result is None:
            return
        if result.version is not None:
            self._switch_to(result.version, result.step)
            return
        self.failures += 1
        message = (
            f"The index could not be refreshed with the encoder of step {result.step} ({result.failure}); the index "
            f"of step {self._searched_step} remains in use."
        )
        if advise:
            message += (
                " It is behind the document encoder. When the model has been saved, bring it up to date with: "
                + self._manual_command()
            )
        warnings.warn(message, UserWarning, stacklevel=2)

    def _manual_command(self) -> str:
        """The command that embeds the searched passages with the saved document encoder."""
        base = self._index.base
        command = ["ragweave", "reembed", str(base.path)]
        if base.version in base.version_names():  # 'ragweave compact' may have deleted it
            command += ["--version", base.version]
        command += ["--model", str(self.output / DOCUMENT_ENCODER_FOLDER), "--output", str(self.folder)]
        return shlex.join(command)

    def _result(self, *, wait: bool) -> _Result | None:
        """The result of a refresh that has ended; ``None`` if there is none."""
        if self._failed_to_start is not None:
            result, self._failed_to_start = self._failed_to_start, None
            return result
        running = self._running
        if running is None:
            return None
        code = running.process.wait() if wait else running.process.poll()
        if code is None:
            return None
        self._running = None
        shutil.rmtree(self._temporary / f"encoder-{running.step}", ignore_errors=True)
        if code:
            return _Result(running.step, failure=_last_line(running.log) or f"it ended with code {code}")
        try:
            return _Result(running.step, version=KnowledgeBase.open(self.folder).version)
        except KnowledgeBaseError as error:
            return _Result(running.step, failure=str(error))

    def _switch_to(self, version: str, step: int) -> None:
        base = KnowledgeBase.open(self.folder, version=version)
        self.retriever.index = self._index.over(base)
        self._searched_step = step

    def _open(self, version: str | None = None) -> KnowledgeBase | None:
        """The run's knowledge base, if it has the version and can be read."""
        try:
            return KnowledgeBase.open(self.folder, version=version)
        except KnowledgeBaseError:
            return None


def _environment() -> dict[str, str]:
    """The environment of a refresh. It uses half of the cores, because the trainer uses them at the same time."""
    environment = dict(os.environ)
    # torchrun sets OMP_NUM_THREADS to 1 for its own processes, not because the user wants it.
    if "OMP_NUM_THREADS" not in environment or "TORCHELASTIC_RUN_ID" in environment:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 2) // 2))
    return environment


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """End a process, which gets some time to clean up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_TERMINATION_TIME)
            return
    process.kill()
    process.wait()


def _last_line(log: Path) -> str | None:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return None
    return lines[-1] if lines else None


def _versions_of_checkpoints(output: Path) -> set[str]:
    """The versions of the run's knowledge base that its checkpoints refer to."""
    versions: set[str] = set()
    for path in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}"):
        with suppress(OSError, ValueError, KeyError, TypeError):  # an incomplete checkpoint cannot be resumed
            state = json.loads(path.read_text(encoding="utf-8"))
            version = state["stateful_callbacks"][IndexRefresh.__name__]["attributes"]["version"]
            if version is not None:
                versions.add(version)
    return versions
