"""End-to-end training: the document encoder, and refreshes of the index with it.

A refresh embeds all passages in another process, so that training neither waits for it nor fails with it. A snapshot
of the encoder is saved, `ragweave.training.refresh_subprocess` adds a version to the run's knowledge base, and
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
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerState
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
from ragweave.pipeline.rag_pipeline import RagPipeline
from ragweave.retrieval.rag_retriever import RagRetriever
from ragweave.training import refresh_subprocess
from ragweave.training.arguments import RagTrainingArguments
from ragweave.training.resumable_trainer import broadcast

KNOWLEDGE_BASE_FOLDER = "knowledge-base"
"""The knowledge base of a run, in its output folder."""

DOCUMENT_ENCODER_FOLDER = "document-encoder"
"""The trained document encoder, in the folder of its model."""

_TERMINATION_TIME = 5.0  # seconds that a process has to end after each signal


def load_document_encoder(
    base: KnowledgeBase, question_encoder: TextEncoder, name: str | None = None
) -> TextEncoder:
    """Load the encoder that embedded the passages; a copy, if it is the question encoder.

    ``name`` is its folder or hub name; by default the name in the knowledge base. Raises `ModelNotFoundError`
    if it cannot be loaded, and `EncoderMismatchError` if another encoder embedded the passages.
    """
    record = base.manifest.encoder
    if name is None and question_encoder.fingerprint == record.fingerprint:
        return TextEncoder(
            model=copy.deepcopy(question_encoder.model).requires_grad_(True),
            tokenizer=question_encoder.tokenizer,
            name=record.name,
            pooling=question_encoder.pooling,
            normalize=question_encoder.normalize,
            max_length=record.max_length,  # questions and passages may have different limits
            question_prompt=record.question_prompt,
            passage_prompt=record.passage_prompt,
            dim=record.dim,
        )
    try:
        encoder = record.load(name)
        base.check_encoder(encoder)
    except (ModelNotFoundError, EncoderMismatchError) as error:
        hint = "Name the encoder of the passages with --document-encoder (document_encoder=...)."
        raise type(error)(f"{error} {hint}") from error
    return encoder


def train_document_encoder(pipeline: RagPipeline, name: str | None = None) -> TextEncoder:
    """Make a model embed retrieved passages again when it scores them, so that their encoder gets a gradient.

    Returns the encoder of `load_document_encoder`, whose weights are now part of the model. Raises
    `ConfigurationError` if the two encoders differ in pooling or normalisation.
    """
    model = pipeline.model
    encoder = load_document_encoder(pipeline.knowledge_base, pipeline.encoder, name)
    pooling, normalize = model.rag.question_pooling, model.config.question_encoder_normalize
    if (pooling, normalize) != (encoder.pooling, encoder.normalize):
        raise ConfigurationError(
            f"The question encoder has pooling '{pooling}' {'with' if normalize else 'without'} normalisation, the "
            f"document encoder '{encoder.pooling}' {'with' if encoder.normalize else 'without'}: choose encoders "
            "that agree in both."
        )
    model.set_context_encoder_for_training(encoder.model.to(model.device))
    # Not a nested function: a data loader's processes may have to pickle the retriever.
    pipeline.retriever.set_ctx_encoder_tokenizer(partial(_tokenize_passages, encoder))
    return encoder


def _tokenize_passages(encoder: TextEncoder, titles: list[str], texts: list[str], **options: Any) -> Any:
    """Tokenize passages as the knowledge base did when it embedded them."""
    passages = [
        encoder.passage_prompt + with_title(title, text) for title, text in zip(titles, texts, strict=True)
    ]
    return encoder.tokenizer(passages, max_length=encoder.max_length, **options)


class _Result(NamedTuple):
    """The version that a refresh with the encoder of a step wrote, or the reason why it failed."""

    step: int
    version: str | None = None
    failure: str | None = None


class IndexRefresh(TrainerCallback, ExportableState):
    """Refreshes the index of a knowledge base in a folder with the document encoder that is being trained."""

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
        self.failures = 0
        # Cached now because snapshots record it. It takes a forward pass, whose dropout would change the random
        # numbers of a resumed run.
        _ = encoder.dimension
        self._is_main = args.process_index == 0  # starts refreshes; all processes switch to the new version
        self._temporary = self.output / ".refresh"  # snapshots of the encoder
        self._log = self._temporary / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._process_step = 0
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

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Switch to the version that was searched when the checkpoint of a resumed run was saved."""
        saved: Any = state.stateful_callbacks.get(type(self).__name__)
        if not state.global_step or not saved:
            return
        version, step = saved["attributes"]["version"], saved["attributes"]["step"]
        if version is not None:
            if broadcast(self._is_main and self._open(version) is not None):
                self._switch_to(version, step)
            else:  # another process deleted it; a refresh with the checkpoint's encoder comes closest to it
                self._refresh_now(state.global_step)
        # A refresh that was due when the checkpoint was saved had not finished or not started.
        steps = self.args.refresh_steps
        due = state.global_step % steps == 0 if steps else float(state.epoch or 0.5).is_integer()
        if due and self.staleness(state.global_step):
            self._start_due(state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Switch to the version of a completed refresh, and start one that is due."""
        self._finish_running()
        if self.args.refresh_steps is not None and state.global_step % self.args.refresh_steps == 0:
            self._start_due(state.global_step)

    def on_epoch_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Start a refresh if refreshes are due after epochs."""
        if self.args.refresh_steps is None:
            self._start_due(state.global_step)

    def finish(self, step: int) -> None:
        """Refresh the index with the final encoder.

        Warns:
            UserWarning: The refresh failed. The message contains the error, and the command that repeats the refresh
                when the document encoder has been saved.
        """
        self._refresh_now(step, advise=True)
        self.stop()

    def stop(self) -> None:
        """End a running refresh, and remove its files."""
        process, self._process = self._process, None
        if process is not None:
            _terminate(process)
            with suppress(KnowledgeBaseError):
                discard_staged(self.folder)
        if self._is_main:
            shutil.rmtree(self._temporary, ignore_errors=True)

    @property
    def _index(self) -> KnowledgeBaseIndex:
        index = self.retriever.index
        if not isinstance(index, KnowledgeBaseIndex):
            raise TrainingError("The retriever's index was replaced during training: leave it unchanged.")
        return index

    def _start_due(self, step: int) -> None:
        """Start a refresh, unless one is running: then the next one starts when it is due."""
        if self._process is None:
            self._start(step)
        if not self.args.refresh_in_background:
            self._finish_running(wait=True)

    def _refresh_now(self, step: int, *, advise: bool = False) -> None:
        """Bring the searched index, and the current version of the run's knowledge base, up to a step."""
        self._finish_running(wait=True)
        base = self._index.base
        # An interrupted run may have written a later version than the one that is searched.
        current = self._open()
        is_current = current is not None and (base.path, base.version) == (self.folder, current.version)
        if self.staleness(step) or not is_current:
            self._start(step)
        self._finish_running(wait=True, advise=advise)

    def _start(self, step: int) -> None:
        """Start a process; if that fails, `_finish_running` tells all processes of the run."""
        if not self._is_main:
            return
        snapshot = self._temporary / f"encoder-{step}"
        try:
            self.encoder.save_pretrained(snapshot)
            with self._log.open("wb") as file:
                self._process = subprocess.Popen(  # noqa: S603 - our own command
                    self._command(snapshot), stdout=file, stderr=subprocess.STDOUT, env=_environment()
                )
            self._process_step = step
        except Exception as error:  # libraries raise different exceptions for a full disk
            shutil.rmtree(snapshot, ignore_errors=True)
            self._failed_to_start = _Result(step, failure=f"it could not be started: {error}")

    def _command(self, snapshot: Path) -> list[str]:
        """The command that embeds the searched passages with a snapshot of the encoder."""
        base, args, ray = self._index.base, self.args, self.args.refresh_engine == "ray"
        # Other processes search the current version until they switch, and new checkpoints refer to it.
        searched = {base.version} if base.path == self.folder else set()
        job = {
            "knowledge_base": str(base.path),
            "version": base.version,
            "output": str(self.folder),
            "keep_versions": sorted(searched | _versions_of_checkpoints(self.output)),
            "encoder": str(snapshot),
            "encoder_name": str(self.output / DOCUMENT_ENCODER_FOLDER),  # snapshots are deleted
            "device": None if ray else args.refresh_device,
            "ray_workers": args.refresh_workers if ray else None,
            "ray_address": args.refresh_address if ray else None,
        }
        return [sys.executable, "-m", refresh_subprocess.__name__, str(os.getpid()), json.dumps(job)]

    def _finish_running(self, *, wait: bool = False, advise: bool = False) -> None:
        """Switch to the version of a completed refresh, in all processes at the same step, or warn that it failed."""
        result = broadcast(self._result(wait=wait) if self._is_main else None)
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
            message += " It is stale. When the model has been saved, bring it up to date with: "
            message += self._manual_command()
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
        result, self._failed_to_start = self._failed_to_start, None
        if result is not None or self._process is None:
            return result
        code, step = self._process.wait() if wait else self._process.poll(), self._process_step
        if code is None:
            return None
        self._process = None
        shutil.rmtree(self._temporary / f"encoder-{step}", ignore_errors=True)
        if code:
            return _Result(step, failure=_last_line(self._log) or f"it ended with code {code}")
        try:
            return _Result(step, version=KnowledgeBase.open(self.folder).version)
        except KnowledgeBaseError as error:
            return _Result(step, failure=str(error))

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
    """The environment of a refresh, which uses half of the cores: the trainer works at the same time."""
    environment = dict(os.environ)
    # torchrun sets OMP_NUM_THREADS to 1 for its processes; the user did not ask for it.
    if "OMP_NUM_THREADS" not in environment or "TORCHELASTIC_RUN_ID" in environment:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 2) // 2))
    return environment


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """End a process, and give it time to clean up."""
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
