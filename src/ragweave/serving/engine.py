"""The blocking calls of the service that answer, retrieve, embed and load new versions."""

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
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ragweave.encoders.text_encoder import TextEncoder
from ragweave.errors import (
    ConfigurationError,
    GeneratorError,
    QuestionError,
    RagweaveError,
    TruncatedFileError,
)
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.filters import check_names
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
from ragweave.pipeline.answer_pipeline import AnswerPipeline
from ragweave.pipeline.conversation import standalone_question
from ragweave.serving.batching import AnswerReady, Job, PassagesRetrieved, TextGenerated
from ragweave.serving.errors import (
    LimitError,
    unavailable,
)
from ragweave.types import Passage, ScoredPassage, source_name

P = TypeVar("P", bound=ScoredPassage)

_LOG = logging.getLogger(__name__)
# The source of a document that was added over HTTP is one of these prefixes, followed by its id or file name.
POSTED, UPLOADED = "posted:", "uploaded:"
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n|(?<=\uff1f)")


class Engine:
    """Answers, retrieves and embeds. Make all calls of one kind in the same thread.

    Args:
        pipeline: Pipeline over a knowledge base.
        refresh_seconds: Seconds between checks for a new version of the knowledge base.
        model_lock: Held while the model answers, if several engines share the model.

    Attributes:
        refresh_failures: Number of versions that could not be loaded.

    Raises:
        ConfigurationError: The pipeline has no knowledge base.
    """

    def __init__(
        self,
        pipeline: AnswerPipeline,
        *,
        refresh_seconds: float,
        model_lock: threading.Lock | None = None,
    ) -> None:
        if not isinstance(pipeline.retriever.index, KnowledgeBaseIndex):
            raise ConfigurationError("The pipeline has no knowledge base. Load it with knowledge_base.")
        self.pipeline = pipeline
        self._pipelines = {name: pipeline.with_formulation(name) for name in pipeline.formulations}
        self._refresh_seconds = refresh_seconds
        self._model_lock = model_lock or threading.Lock()
        self._refresh_lock = threading.Lock()
        self._refreshed = time.monotonic()
        self.refresh_failures = 0
        # Fast tokenizers keep truncation state and must not be shared between threads.
        self._retrieval = copy(pipeline)
        self._retrieval.encoder = copy_encoder(pipeline.encoder)
        self._retrieval_tokenizer = deepcopy(pipeline.retriever.generator_tokenizer)
        self._text_encoder = copy_encoder(pipeline.encoder)

    @property
    def base(self) -> KnowledgeBase:
        """The version of the knowledge base in use."""
        return cast(KnowledgeBaseIndex, self.pipeline.retriever.index).base

    def answer(self, jobs: Sequence[Job]) -> None:
        """Answer a batch of jobs with equal options, and publish their events."""
        self.refresh()
        generator = self.pipeline.model and self.pipeline.model.generator
        with self._model_lock, _while_awaited(generator, jobs):
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
            passages = tuple(_public(passage) for passage in answer.passages)
            jobs[i].publish(AnswerReady(replace(answer, passages=passages)))

    def check_where(self, where: str) -> None:
        """Raise `ConfigurationError` if a condition is invalid or names a field that no passage has."""
        self.refresh()
        check_names(where, self.base.storage.columns())

    def retrieve(
        self, questions: Sequence[str], n_docs: int | None, where: str | None = None
    ) -> list[tuple[ScoredPassage, ...]]:
        """Retrieve passages. Arguments and errors are those of `AnswerPipeline.retrieve`."""
        self.refresh()
        result = self._retrieval.retrieve(questions, n_docs=n_docs, where=where)
        return [tuple(map(_public, passages)) for passages in result.ranked_passages()]

    def token_count(self, question: str) -> int:
        """The number of the generator's tokens in a question. Call it in the retrieval thread."""
        tokens = self._retrieval_tokenizer(question, add_special_tokens=False, verbose=False)
        return len(tokens["input_ids"])

    def condense(self, message: str, max_characters: int) -> str:
        """Shorten a message that is too long for the models to its last question or, without one, to its end.

        Call it in the retrieval thread.
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
        """The vectors of L texts, (L, D), and their total number of the encoder's tokens.

        Raises:
            LimitError: A text is longer than the encoder's maximum length.
        """
        encoder = self._text_encoder
        counts = [encoder.token_count(text) for text in texts]
        most = max(range(len(texts)), key=counts.__getitem__)
        if encoder.max_length is not None and counts[most] > encoder.max_length:
            raise LimitError(
                f"Text {most} has {counts[most]} tokens, but the encoder reads {encoder.max_length}. Send shorter "
                "texts."
            )
        return encoder.encode(texts, prompt=""), sum(counts)  # OpenAI clients put prompts into the texts

    def refresh(self, *, force: bool = False) -> None:
        """Load a new version of the knowledge base if the last check was ``refresh_seconds`` ago.

        If the new version cannot be loaded, the current one stays in use.

        Args:
            force: Check now.

        Raises:
            TruncatedFileError: A file of the current version was truncated. It must not be read until it is restored.
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
        """Rewrite a follow-up, and return whether it can be encoded; an invalid one must not fail the batch."""
        try:
            job.question = standalone_question(
                self._pipelines[job.options.formulation], job.turns, job.question
            )
            self.pipeline.encoder.question_length(job.question)
        except (QuestionError, GeneratorError) as error:
            job.publish(error)
            return False
        return True


class _JobCallback:
    """Publishes what the pipeline reports about a batch as events of its jobs."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs

    def on_passages(self, position: int, passages: Sequence[ScoredPassage]) -> None:
        self._jobs[position].publish(PassagesRetrieved([_public(passage) for passage in passages]))

    def on_text(self, position: int, text: str) -> None:
        self._jobs[position].publish(TextGenerated(text))

    def on_error(self, position: int, error: GeneratorError) -> None:
        self._jobs[position].publish(error)

    def should_stop(self, position: int) -> bool:
        return self._jobs[position].cancelled


class _AbandonedError(Exception):
    """All jobs of the batch are cancelled or late."""


@contextmanager
def _while_awaited(generator: nn.Module | None, jobs: Sequence[Job]) -> Iterator[None]:
    """Leave the block at the generator's next layer when all jobs are cancelled, or past their deadline.

    `should_stop` is checked only at each token. Encoding contexts and scoring hypotheses may take longer than that.
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


def public_name(source: str, document_id: str = "") -> str:
    """The name of a source or an encoder without this machine's folders; see `source_name`."""
    if source.startswith(POSTED):
        return source
    return source_name(source.removeprefix(UPLOADED), document_id)


def _public(passage: P) -> P:
    place = passage.place
    if place and is_posted(passage):
        place = replace(place, line=None)
    return replace(passage, source=public_name(passage.source, passage.id), place=place)


def is_posted(passage: Passage | ScoredPassage) -> bool:
    """Whether it was posted as JSON; then its line refers to a file that clients never see."""
    return passage.source.startswith(POSTED)


def copy_encoder(encoder: TextEncoder) -> TextEncoder:
    """The same encoder with a separate tokenizer."""
    twin = copy(encoder)
    twin.tokenizer = deepcopy(encoder.tokenizer)
    return twin
