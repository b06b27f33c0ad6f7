"""The service without HTTP: checks limits and runs the engine's blocking calls in threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from ragweave.errors import QuestionError
from ragweave.pipeline.answer_pipeline import AnswerPipeline
from ragweave.provenance.answers import Answer
from ragweave.serving.batching import AnswerOptions, AnswerReady, Batcher, Event, Job
from ragweave.serving.documents import Documents
from ragweave.serving.engine import Engine
from ragweave.serving.errors import DeadlineError, LimitError, OverloadedError, UnsupportedError
from ragweave.serving.metrics import Metrics
from ragweave.serving.schemas import ChangeResponse, DocumentIn
from ragweave.serving.settings import ServingSettings
from ragweave.types import AnswerFormulation

T = TypeVar("T")

_MAX_QUERIES = 32
_MAX_EMBEDDINGS = 4
_MAX_CHANGES, _CHANGE_SECONDS = 4, 600.0


class BoundedExecutor:
    """One thread that runs at most ``max_pending`` calls in order, each within ``deadline`` seconds."""

    def __init__(self, name: str, *, max_pending: int, deadline: float) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"ragweave-{name}")
        self._max_pending = max_pending
        self._deadline = deadline
        self._pending = 0

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run a call in the thread.

        Raises:
            OverloadedError: Too many calls are pending.
            DeadlineError: The call took too long. A call that has started still runs to its end.
        """
        if self._pending >= self._max_pending:
            raise OverloadedError(1)
        self._pending += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)
        future.add_done_callback(self._on_done)
        try:
            async with asyncio.timeout(self._deadline):
                return await future
        except TimeoutError as error:
            raise DeadlineError(
                f"The request took longer than {self._deadline:g} s. Try again later."
            ) from error

    async def stop(self) -> None:
        """Run all pending calls, then stop."""
        await asyncio.to_thread(self._pool.shutdown)

    def _on_done(self, future: asyncio.Future[T]) -> None:
        self._pending -= 1
        if not future.cancelled():
            future.exception()  # asyncio logs exceptions that nobody retrieves


class Service:
    """Answers questions, retrieves passages and changes documents for concurrent callers.

    Args:
        pipeline: Pipeline over a knowledge base.
        settings: Settings of the service.
        name: The name of the knowledge base.
        model_lock: As in `Engine`.

    Attributes:
        started: When the service was created, in seconds since 1970.
        batcher: Answers questions.
        documents: The documents of the knowledge base.
        queries: Runs calls that change nothing.
        embeddings: Runs calls of the engine that embed texts.
        changes: Runs calls that change documents.
    """

    def __init__(
        self,
        pipeline: AnswerPipeline,
        settings: ServingSettings,
        *,
        name: str = "",
        model_lock: threading.Lock | None = None,
    ) -> None:
        self.settings = settings
        self.name = name
        self.started = int(time.time())
        self.engine = Engine(
            pipeline,
            refresh_seconds=settings.refresh_seconds,
            model_lock=model_lock,
        )
        self.documents = Documents(self.engine, keep_versions=settings.keep_versions)
        self.metrics = Metrics(
            waiting=lambda: self.batcher.waiting,
            passages=lambda: len(self.engine.base),
            refresh_failures=lambda: self.engine.refresh_failures,
            passage_cache=pipeline.passage_cache,
        )
        self.batcher = Batcher(
            self.engine.answer, settings.batching, on_batch=self.metrics.batch_size.observe
        )
        self.queries = BoundedExecutor(
            "queries", max_pending=_MAX_QUERIES, deadline=settings.batching.deadline
        )
        self.embeddings = BoundedExecutor(
            "embeddings", max_pending=_MAX_EMBEDDINGS, deadline=settings.batching.deadline
        )
        self.changes = BoundedExecutor("changes", max_pending=_MAX_CHANGES, deadline=_CHANGE_SECONDS)

    def start(self) -> None:
        """Start to answer, in the event loop that receives the requests."""
        self.batcher.start()

    async def stop(self) -> None:
        """Finish all accepted work, then stop."""
        await self.batcher.stop()
        await self.queries.stop()
        await self.embeddings.stop()
        await self.changes.stop()

    def options(
        self,
        *,
        n_docs: int | None = None,
        num_beams: int | None = None,
        max_new_tokens: int | None = None,
        formulation: AnswerFormulation | None = None,
        min_confidence: float | None = None,
        where: str | None = None,
    ) -> AnswerOptions:
        """The options of a request, with defaults from the settings.

        Raises:
            LimitError: An option exceeds a limit.
            UnsupportedError: The generator cannot answer under the formulation.
        """
        self.check_limits(n_docs=n_docs, num_beams=num_beams, max_new_tokens=max_new_tokens)
        pipeline = self.engine.pipeline
        if formulation is not None and formulation not in pipeline.formulations:
            raise UnsupportedError(f"The generator of this service cannot answer under '{formulation}'.")
        return AnswerOptions(
            n_docs=n_docs or self.settings.n_docs or pipeline.config.n_docs,
            num_beams=num_beams or self.settings.num_beams,
            max_new_tokens=max_new_tokens or self.settings.max_new_tokens,
            formulation=formulation or pipeline.formulation,
            min_confidence=pipeline.min_confidence if min_confidence is None else min_confidence,
            where=where,
        )

    async def check_where(self, where: str | None) -> None:
        """Raise `ConfigurationError` if a condition is invalid, or names a field that no passage has."""
        if where is not None:
            await self.queries.run(self.engine.check_where, where)

    def check_limits(self, **counts: int | None) -> None:
        """Check counts of a request against the limits of the same names.

        Raises:
            LimitError: A count exceeds its limit.
        """
        for name, count in counts.items():
            limit = getattr(self.settings.limits, name)
            if count is not None and count > limit:
                raise LimitError(
                    f"{name} is {count}, but this service allows at most {limit} (limit {name})."
                )

    def check_questions(self, questions: Sequence[str]) -> None:
        """Check the number of questions and each question.

        Raises:
            LimitError: There are too many questions, or one is too long.
            QuestionError: A question is blank.
        """
        self.check_limits(questions=len(questions))
        for question in questions:
            self.check_limits(question_characters=len(question))
            if not question.strip():
                raise QuestionError("The question is empty. Ask a question.")

    async def answer(
        self, questions: Sequence[str], options: AnswerOptions, turns: Sequence[tuple[str, str]] = ()
    ) -> list[Answer]:
        """Answer questions, which may refer to earlier questions and answers.

        Raises:
            LimitError: There are too many questions, or one is too long.
            QuestionError: A question is blank, or longer than the encoder reads.
            OverloadedError: The queue is full.
            DeadlineError: The answers took too long.
            UnavailableError: The service is stopping.
        """
        answers = []
        with self._submit(questions, options, turns) as jobs:
            for job in jobs:
                event = await job.next_event(self.settings.batching.deadline)
                while not isinstance(event, AnswerReady):
                    event = await job.next_event(self.settings.batching.deadline)
                answers.append(event.answer)
        return answers

    async def stream(
        self, question: str, options: AnswerOptions, turns: Sequence[tuple[str, str]] = ()
    ) -> AsyncGenerator[Event]:
        """Answer a question as a stream of events. Closing the generator cancels the answer.

        Yields:
            The events of the job. The last one is `AnswerReady`.

        Raises:
            The errors of `answer`, before the first event or between two events.
        """
        with self._submit([question], options, turns) as (job,):
            while True:
                event = await job.next_event(self.settings.batching.deadline)
                yield event
                if isinstance(event, AnswerReady):
                    return

    async def add(self, documents: Sequence[DocumentIn]) -> ChangeResponse:
        """Add documents; see `Documents.add`.

        Raises:
            LimitError: There are too many documents, or one is too long.
        """
        self.check_limits(documents=len(documents))
        for document in documents:
            self.check_limits(document_characters=len(document.text))
        return ChangeResponse.of(await self.changes.run(self.documents.add, documents))

    async def delete(self, document_id: str) -> ChangeResponse:
        """Delete a document or a passage; see `Documents.delete`."""
        return ChangeResponse.of(await self.changes.run(self.documents.delete, document_id))

    @contextmanager
    def _submit(
        self, questions: Sequence[str], options: AnswerOptions, turns: Sequence[tuple[str, str]]
    ) -> Iterator[list[Job]]:
        """Submit a job for each question, and cancel unfinished jobs at the end."""
        self.check_questions(questions)
        jobs = [Job(question, options, turns) for question in questions]
        self.batcher.submit(jobs)
        try:
            yield jobs
        finally:
            for job in jobs:
                self.batcher.cancel(job)
