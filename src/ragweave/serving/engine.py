"""The blocking calls of the service: answer, retrieve, change documents, load new versions."""

from __future__ import annotations

import logging
import math
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ragweave.encoders.text_encoder import TextEncoder
from ragweave.errors import (
    ConfigurationError,
    KnowledgeBaseError,
    QuestionError,
    RagweaveError,
    SourceError,
    TruncatedFileError,
)
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.filters import check_names
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
from ragweave.pipeline.answer_pipeline import AnswerPipeline
from ragweave.pipeline.conversation import standalone_question
from ragweave.serving.batching import AnswerReady, Job, PassagesRetrieved, TextGenerated
from ragweave.serving.errors import (
    ConflictError,
    LimitError,
    NotFoundError,
    UnavailableError,
    UnreadableDocumentError,
    unavailable,
)
from ragweave.serving.schemas import DocumentIn
from ragweave.types import Passage, ScoredPassage, SourceFile

P = TypeVar("P", bound=ScoredPassage)

_LOG = logging.getLogger(__name__)
# The source of a document that was added over HTTP is this prefix and its id.
_POSTED = "posted:"
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n|(?<=\uff1f)")
# How many passages of a document are shown before and after the one that was asked for.
_AROUND = 100


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of a document.

    Attributes:
        passages: Consecutive passages, at least one.
        marked: The position of the one that was asked for; ``None`` if the document was.
        before: How many passages precede them in the document.
        after: How many follow.
    """

    passages: list[Passage]
    marked: int | None
    before: int
    after: int


class Engine:
    """Answers, retrieves, embeds, and changes documents. Each of these must stay in one thread.

    Args:
        pipeline: Pipeline over a knowledge base.
        refresh_seconds: Seconds between checks for a new version of the knowledge base.
        keep_versions: How many older versions a change leaves.

    Attributes:
        refresh_failures: How many versions could not be loaded.

    Raises:
        ConfigurationError: The pipeline has no knowledge base.
    """

    def __init__(self, pipeline: AnswerPipeline, *, refresh_seconds: float, keep_versions: int) -> None:
        if not isinstance(pipeline.retriever.index, KnowledgeBaseIndex):
            raise ConfigurationError("The pipeline has no knowledge base. Load it with knowledge_base.")
        self.pipeline = pipeline
        self._pipelines = {name: pipeline.with_formulation(name) for name in pipeline.formulations}
        self._refresh_seconds = refresh_seconds
        self._keep_versions = keep_versions
        self._refresh_lock = threading.Lock()
        self._refreshed = time.monotonic()
        self.refresh_failures = 0
        # Fast tokenizers keep truncation state and must not be shared between threads.
        self._retrieval = copy(pipeline)
        self._retrieval.encoder = _copy_encoder(pipeline.encoder)
        self._retrieval_tokenizer = deepcopy(pipeline.retriever.generator_tokenizer)
        self._document_encoder = _copy_encoder(pipeline.encoder)
        self._text_encoder = _copy_encoder(pipeline.encoder)

    @property
    def base(self) -> KnowledgeBase:
        """The version of the knowledge base in use."""
        return cast(KnowledgeBaseIndex, self.pipeline.retriever.index).base

    def answer(self, jobs: Sequence[Job]) -> None:
        """Answer a batch of jobs with equal options, and publish their events."""
        self.refresh()
        with _while_awaited(self.pipeline.model and self.pipeline.model.generator, jobs):
            self._answer([job for job in jobs if not job.cancelled and self._is_ready(job)])

    def _answer(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        options = jobs[0].options
        pipeline = self._pipelines[options.formulation]
        for i, answer in pipeline.stream(
            [job.question for job in jobs],
            n_docs=options.n_docs,
            num_beams=options.num_beams,
            max_new_tokens=options.max_new_tokens,
            min_confidence=options.min_confidence,
            where=options.where,
            batch_size=len(jobs),
            prefetch=False,
            callback=_JobCallback(jobs),
        ):
            passages = tuple(_without_folders(passage) for passage in answer.passages)
            jobs[i].publish(AnswerReady(replace(answer, passages=passages)))

    def check_where(self, where: str) -> None:
        """Raise `ConfigurationError` if a condition is invalid or names what no passage has."""
        self.refresh()
        check_names(where, self.base.storage.columns())

    def retrieve(
        self, questions: Sequence[str], n_docs: int | None, where: str | None = None
    ) -> list[tuple[ScoredPassage, ...]]:
        """Retrieve passages. Arguments and errors are those of `AnswerPipeline.retrieve`."""
        self.refresh()
        result = self._retrieval.retrieve(questions, n_docs=n_docs, where=where)
        return [tuple(map(_without_folders, passages)) for passages in result.ranked_passages()]

    def excerpt(self, name: str) -> Excerpt:
        """A passage with those around it in its document, or the start of a document.

        Raises:
            NotFoundError: No document and no passage has this id.
        """
        self.refresh()
        document = self.base.document(name.rpartition("#")[0])
        asked = next((number for number, one in enumerate(document) if one.id == name), None)
        if asked is None:
            document = self.base.document(name)
        if not document:
            raise NotFoundError(f"There is no document {name!r}, or no longer. Ask the question again.")
        first = max(0, (asked or 0) - _AROUND)
        passages = document[first : (asked or 0) + _AROUND + 1]
        public = [
            replace(one, source=public_name(one.source), line=0 if _is_posted(one) else one.line)
            for one in passages
        ]
        marked = None if asked is None else asked - first
        return Excerpt(public, marked, first, len(document) - first - len(passages))

    def token_count(self, question: str) -> int:
        """How many tokens of the generator a question has. Call it in the thread for retrieval."""
        tokens = self._retrieval_tokenizer(question, add_special_tokens=False, verbose=False)
        return len(tokens["input_ids"])

    def condense(self, message: str, max_characters: int) -> str:
        """A message that the models read whole, or the last question of a longer one; without a question, its end.

        Call it in the thread for retrieval.
        """
        encoder = self._retrieval.encoder
        longest = encoder.max_length or sys.maxsize

        def fits(text: str) -> bool:
            return (
                len(text) <= max_characters
                and encoder.question_token_count(text) <= longest
                and self.token_count(text) <= self.pipeline.config.max_combined_length // 2
            )

        if fits(message):
            return message
        sentences = [one.strip() for one in _END_OF_SENTENCE.split(message)]
        questions = [one for one in sentences if one.endswith(("?", "\uff1f"))]
        text = (questions[-1] if questions else message.strip())[-max_characters:]
        while not fits(text):
            text = text[len(text) // 8 + 1 :]
            text = text.partition(" ")[2] or text
        return text

    def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """The vectors of texts, (L, D), and how many tokens of the encoder they have.

        Raises:
            LimitError: A text is longer than the encoder reads.
        """
        encoder = self._text_encoder
        counts = [encoder.token_count(text) for text in texts]
        most = max(range(len(texts)), key=counts.__getitem__)
        if encoder.max_length is not None and counts[most] > encoder.max_length:
            raise LimitError(
                f"Text {most} has {counts[most]} tokens, but the encoder reads {encoder.max_length}. Send shorter "
                "texts."
            )
        return encoder.encode(texts, prompt=""), sum(counts)  # clients of OpenAI write prompts into texts

    def add(self, documents: Sequence[DocumentIn]) -> KnowledgeBase:
        """Add documents. Each replaces the document with the same id that was added over HTTP before.

        Raises:
            ConflictError: A document from another source has the same id.
            UnreadableDocumentError: A document yields no passages.
            UnavailableError: The knowledge base cannot be changed now.
        """
        with _change_errors(), TemporaryDirectory(prefix="ragweave-") as folder:
            latest = self.base.latest()
            for document in documents:
                passages = latest.document(document.id)
                if passages and passages[0].source != _POSTED + document.id:
                    raise ConflictError(
                        f"A document {document.id!r} from another source exists. Delete it first, or choose another "
                        "id."
                    )
            sources = [_write_source(document, Path(folder), i) for i, document in enumerate(documents)]
            base = latest.add(sources, encoder=self._document_encoder, strict=True)
        return self._changed(base)

    def delete(self, document_id: str) -> KnowledgeBase:
        """Delete a document, or one passage.

        Raises:
            NotFoundError: No document and no passage has this id.
            UnavailableError: The knowledge base cannot be changed now.
        """
        with _change_errors():
            latest = self.base.latest()
            if not latest.row_of(document_id):
                raise NotFoundError(f"There is no document {document_id!r}. Check the id.")
            base = latest.delete(ids=[document_id])
        return self._changed(base)

    def _changed(self, base: KnowledgeBase) -> KnowledgeBase:
        """Answer from the new version, and delete old ones."""
        self.refresh(force=True)
        try:
            base.prune(keep=self._keep_versions)
        except (
            KnowledgeBaseError
        ) as error:  # the documents were changed; the next change deletes the versions
            _LOG.warning("Old versions of the knowledge base were not deleted: %s", unavailable(error))
        return base

    def refresh(self, *, force: bool = False) -> None:
        """Load a new version of the knowledge base if the last check was ``refresh_seconds`` ago.

        If the new version cannot be loaded, the current one stays in use.

        Args:
            force: Check now.

        Raises:
            TruncatedFileError: A file of the current version was cut off. Until it is restored, nobody may read it.
        """
        with self._refresh_lock:
            if not force and time.monotonic() - self._refreshed < self._refresh_seconds:
                return
            self._refreshed = time.monotonic()
            try:
                self.pipeline.refresh()
            except TruncatedFileError:
                self._refreshed = -math.inf  # the next call checks again
                raise
            except (RagweaveError, OSError) as error:
                self.refresh_failures += 1
                _LOG.warning(
                    "The new version of the knowledge base cannot be used. The previous one stays in use. Reason: %s",
                    unavailable(error) or type(error).__name__,
                )

    def _is_ready(self, job: Job) -> bool:
        """Make a question stand alone, and tell whether it can be encoded; an invalid one must not fail the batch."""
        try:
            job.question = standalone_question(
                self._pipelines[job.options.formulation], job.turns, job.question
            )
            self.pipeline.encoder.question_length(job.question)
        except QuestionError as error:
            job.publish(error)
            return False
        return True


class _JobCallback:
    """Publishes what the pipeline reports about a batch as events of its jobs."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs

    def on_passages(self, position: int, passages: Sequence[ScoredPassage]) -> None:
        self._jobs[position].publish(PassagesRetrieved([_without_folders(passage) for passage in passages]))

    def on_text(self, position: int, text: str) -> None:
        self._jobs[position].publish(TextGenerated(text))

    def should_stop(self, position: int) -> bool:
        return self._jobs[position].cancelled


class _AbandonedError(Exception):
    """Nobody waits for the batch any more."""


@contextmanager
def _while_awaited(generator: nn.Module | None, jobs: Sequence[Job]) -> Iterator[None]:
    """Leave the block at the generator's next layer when all jobs are cancelled, or past their deadline.

    `should_stop` is asked at each token. Reading contexts and scoring hypotheses may take longer than all tokens.
    """
    thread = threading.get_ident()  # other threads may use the same generator

    def check(*_: Any) -> None:
        if threading.get_ident() == thread and all(job.cancelled for job in jobs):
            raise _AbandonedError

    modules = () if generator is None else generator.modules()
    lists = [module for module in modules if isinstance(module, nn.ModuleList)]
    hooks = [layer.register_forward_pre_hook(check) for layers in lists for layer in layers]
    try:
        with suppress(_AbandonedError):
            yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _change_errors() -> Iterator[None]:
    """Replace the library's errors about a change, whose messages contain paths."""
    try:
        yield
    except (SourceError, KnowledgeBaseError, OSError) as error:
        reason = unavailable(error)
        if reason is None and isinstance(error, SourceError):
            raise UnreadableDocumentError("A document yields no passages. Change or remove it.") from error
        reason = reason or UnavailableError(
            f"The knowledge base cannot be changed now ({type(error).__name__})."
        )
        _LOG.warning("The knowledge base was not changed: %s", reason)
        raise reason from error


def public_name(source: str) -> str:
    """The name of a source or an encoder without this machine's folders. URLs stay as they are."""
    return source if "://" in source or source.startswith(_POSTED) else PurePath(source).name


def _without_folders(passage: P) -> P:
    place = passage.place
    if place and _is_posted(passage):
        place = replace(place, line=None)
    return replace(passage, source=public_name(passage.source), place=place)


def _is_posted(passage: Passage | ScoredPassage) -> bool:
    """Whether it was added over HTTP, so that the line of its file means nothing to anyone."""
    return passage.source.startswith(_POSTED)


def _copy_encoder(encoder: TextEncoder) -> TextEncoder:
    """The same encoder with a tokenizer of its own."""
    twin = copy(encoder)
    twin.tokenizer = deepcopy(encoder.tokenizer)
    return twin


def _write_source(document: DocumentIn, folder: Path, number: int) -> SourceFile:
    """Write a document as a file that the knowledge base can read."""
    path = folder / f"{number}.jsonl"
    path.write_text(document.model_dump_json(), encoding="utf-8")
    return SourceFile(path=path, name=path.name, known_as=_POSTED + document.id)
