"""Requests in, answers out: the service without HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ragweave.provenance.answers import Answer
from ragweave.serving.batching import Batcher
from ragweave.serving.engine import Engine, NewDocument
from ragweave.serving.errors import DeadlineError
from ragweave.serving.jobs import AnswerOptions, Done, Failed, Job, Retrieved, Said
from ragweave.serving.lanes import Lane
from ragweave.serving.limits import check_counts, check_questions
from ragweave.serving.metrics import Metrics
from ragweave.serving.settings import ServingSettings
from ragweave.types import ScoredPassage

if TYPE_CHECKING:
    from ragweave.knowledge.base import KnowledgeBase
    from ragweave.pipeline.rag_pipeline import Formulation, RagPipeline

T = TypeVar("T")

_FINDING = 32
_CHANGES, _CHANGE_SECONDS = 4, 600.0


class Service:
    """Answers, finds and changes for many callers at once.

    Args:
        pipeline: What answers.
        settings: How.

    Attributes:
        settings: How it answers.
        started: When it was made, in seconds since 1970.
        metrics: What it counts.
        engine: What it works with.
    """

    def __init__(self, pipeline: RagPipeline, settings: ServingSettings) -> None:
        self.settings = settings
        self.started = int(time.time())
        self.metrics = Metrics()
        self.engine = Engine(pipeline, refresh_seconds=settings.refresh_seconds)
        self._batcher = Batcher(self.engine.answer, settings.batching, began=self.metrics.batch_size.observe)
        self._finding = Lane("finding", most=_FINDING, deadline=settings.batching.deadline)
        self._changing = Lane("changing", most=_CHANGES, deadline=_CHANGE_SECONDS)
        self.metrics.watch(
            waiting=lambda: self._batcher.waiting,
            passages=lambda: len(self.engine.base),
            failures=lambda: self.engine.refresh_failures,
        )

    @property
    def ready(self) -> bool:
        """Whether questions are being answered."""
        return self._batcher.ready

    def start(self) -> None:
        """Begin to answer; in the event loop that will ask."""
        self._batcher.start()

    async def stop(self) -> None:
        """Finish what has begun, and end."""
        await self._batcher.stop()
        await self._finding.stop()
        await self._changing.stop()

    def options(
        self,
        *,
        n_docs: int | None = None,
        num_beams: int | None = None,
        max_new_tokens: int | None = None,
        formulation: Formulation | None = None,
    ) -> AnswerOptions:
        """What a request asks for, with the settings where it does not say.

        Raises:
            LimitError: It asks for more than a limit allows.
        """
        check_counts(self.settings.limits, n_docs=n_docs, num_beams=num_beams, max_new_tokens=max_new_tokens)
        return AnswerOptions(
            n_docs=n_docs or self.settings.n_docs or self.engine.n_docs,
            num_beams=num_beams or self.settings.num_beams,
            max_new_tokens=max_new_tokens or self.settings.max_new_tokens,
            formulation=formulation or self.engine.formulation,
        )

    async def answer(self, questions: Sequence[str], options: AnswerOptions) -> list[Answer]:
        """Answer questions.

        Raises:
            LimitError: There are too many, or one is too long.
            QuestionError: One cannot be answered as it stands.
            OverloadedError: Too many are waiting.
            DeadlineError: It took too long.
            UnavailableError: The service is stopping.
        """
        jobs = self._submitted(questions, options)
        try:
            return [await self._answer_of(job) for job in jobs]
        finally:
            for job in jobs:
                self._batcher.abandon(job)

    async def stream(self, question: str, options: AnswerOptions) -> AsyncGenerator[Retrieved | Said | Done]:
        """Answer a question and tell how it goes; who stops listening stops the work.

        Yields:
            What happens, `Done` at the end.

        Raises:
            Errors of `answer`: before the first event, or between events.
        """
        (job,) = self._submitted([question], options)
        try:
            while True:
                event = await self._next(job)
                yield event
                if isinstance(event, Done):
                    return
        finally:
            self._batcher.abandon(job)

    async def retrieve(self, questions: Sequence[str], n_docs: int | None) -> list[tuple[ScoredPassage, ...]]:
        """Find passages; raises what `answer` raises."""
        check_questions(self.settings.limits, questions)
        check_counts(self.settings.limits, n_docs=n_docs)
        wanted = n_docs or self.settings.n_docs
        return await self._finding.run(lambda: self.engine.retrieve(questions, wanted))

    async def add(self, documents: Sequence[NewDocument]) -> KnowledgeBase:
        """Add documents; raises what `Engine.add` raises, and `LimitError`."""
        limits = self.settings.limits
        check_counts(limits, documents=len(documents))
        for document in documents:
            check_counts(limits, document_characters=len(document.text))
        return await self._changing.run(lambda: self.engine.add(documents))

    async def delete(self, document_id: str) -> KnowledgeBase:
        """Delete a document; raises what `Engine.delete` raises."""
        return await self._changing.run(lambda: self.engine.delete(document_id))

    async def look(self, work: Callable[[Engine], T]) -> T:
        """Look something up that may take a moment."""
        return await self._finding.run(lambda: work(self.engine))

    def _submitted(self, questions: Sequence[str], options: AnswerOptions) -> list[Job]:
        check_questions(self.settings.limits, questions)
        jobs = [Job(question, options) for question in questions]
        self._batcher.submit(jobs)
        return jobs

    async def _answer_of(self, job: Job) -> Answer:
        while True:
            event = await self._next(job)
            if isinstance(event, Done):
                return event.answer

    async def _next(self, job: Job) -> Retrieved | Said | Done:
        """What happens next to a job, if it happens in time."""
        seconds = self.settings.batching.deadline
        try:
            async with asyncio.timeout(job.seconds_left(seconds)):
                event = await job.next_event()
        except TimeoutError as error:
            raise DeadlineError(
                f"The question was not answered within {seconds:g} s (limit deadline): ask for fewer tokens or "
                "beams, or again when less is asked."
            ) from error
        if isinstance(event, Failed):
            raise event.error
        return event
