"""Batches questions of concurrent requests: jobs, their events, and the bounded queue."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ragweave.provenance.answers import Answer
from ragweave.serving.errors import DeadlineError, OverloadedError, StoppingError
from ragweave.serving.settings import Batching
from ragweave.types import AnswerFormulation, ScoredPassage

_MAX_RETRY_AFTER = 60
_SMOOTHING = 0.3  # weight of the latest batch in the running mean of seconds per question


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """Options of an answer, as in `RagPipeline.stream`. Questions with equal options share a batch."""

    n_docs: int
    num_beams: int
    max_new_tokens: int
    formulation: AnswerFormulation
    min_confidence: float = 0.0
    where: str | None = None


@dataclass(frozen=True, slots=True)
class PassagesRetrieved:
    """The first event of a job: its passages."""

    passages: Sequence[ScoredPassage]


@dataclass(frozen=True, slots=True)
class TextGenerated:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerReady:
    """The last event of a job: its answer."""

    answer: Answer


Event = PassagesRetrieved | TextGenerated | AnswerReady


class Job:
    """A question in the queue or in a batch.

    Create a job in the event loop that reads its events. A worker thread publishes them.

    Attributes:
        question: The question.
        options: How to answer it.
        turns: Earlier questions and answers, which the question may refer to.
        arrived: When the job was created, in seconds of the monotonic clock.
        cancelled: Whether the answer is no longer needed.
    """

    def __init__(self, question: str, options: AnswerOptions, turns: Sequence[tuple[str, str]] = ()) -> None:
        self.question = question
        self.options = options
        self.turns = turns
        self.arrived = time.monotonic()
        self.cancelled = False
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue()

    def publish(self, event: Event | Exception) -> None:
        """Publish an event, or the error that ends the job; from any thread."""
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def next_event(self, deadline: float) -> Event:
        """Wait for the next event.

        Args:
            deadline: Seconds after the job's arrival.

        Raises:
            DeadlineError: There was no event in time.
            Exception: The error that ended the job.
        """
        try:
            async with asyncio.timeout(self.arrived + deadline - time.monotonic()):
                event = await self._events.get()
        except TimeoutError as error:
            raise DeadlineError(
                f"The question was not answered within {deadline:g} s (limit deadline). Ask for fewer tokens or "
                "beams, or try again later."
            ) from error
        if isinstance(event, Exception):
            raise event
        return event


class Batcher:
    """A bounded queue of jobs, and one thread that answers them in batches.

    A batch starts with the job that has waited longest. Jobs with the same options join it, up to ``max_batch``,
    until ``max_wait``, or half of the deadline, after the first one arrived. The next batch fills while the current
    one is answered.

    Args:
        answer: Answers a batch in the worker thread and publishes the events of its jobs.
        settings: Batch and queue sizes.
        on_batch: Called with the size of each batch when it starts.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Job]], None],
        settings: Batching,
        *,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._answer = answer
        self._settings = settings
        self._longest_wait = min(settings.max_wait, settings.deadline / 2)  # the rest is left for the answer
        self._on_batch = on_batch
        self._queue: deque[Job] = deque()
        self._changed = asyncio.Event()
        self._stopping = False
        self._seconds_per_question = 0.0  # unknown before the first batch
        self._batch: tuple[float, int] | None = None  # when the running batch started, and its size
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Number of waiting jobs, without the batch that is being answered."""
        return len(self._queue)

    @property
    def ready(self) -> bool:
        """Whether jobs are accepted."""
        return self._task is not None and not self._task.done() and not self._stopping

    def start(self) -> None:
        """Start to answer, in the event loop of the service."""
        self._task = asyncio.create_task(self._run(), name="ragweave-batcher")

    def close(self) -> None:
        """Accept no more jobs, and answer the waiting ones without further delay."""
        self._stopping = True
        self._changed.set()

    async def stop(self) -> None:
        """Answer all waiting jobs, then stop."""
        self.close()
        if self._task is not None:
            await self._task

    def submit(self, jobs: Sequence[Job]) -> None:
        """Add all of these jobs to the queue, or none.

        Raises:
            OverloadedError: The queue has no room for all of them, or could not answer them before the deadline.
            StoppingError: The service is stopping.
        """
        if not self.ready:
            raise StoppingError
        idle = self._batch is None and not self._queue  # only a further attempt can correct a wrong estimate
        late = not idle and self._seconds_until(len(self._queue) + len(jobs)) > self._settings.deadline
        if late or len(self._queue) + len(jobs) > self._settings.max_queue:
            raise self._overloaded()
        self._queue.extend(jobs)
        self._changed.set()

    def cancel(self, job: Job) -> None:
        """Remove a job from the queue, or stop its answer at the next token."""
        job.cancelled = True
        if job in self._queue:
            self._queue.remove(job)

    async def _run(self) -> None:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ragweave-answers") as pool:
            while await self._batch_is_due():
                batch = self._next_batch()
                for job in batch:
                    self._queue.remove(job)
                self._on_batch(len(batch))
                started = time.monotonic()
                self._batch = started, len(batch)
                await asyncio.get_running_loop().run_in_executor(pool, self._answer_batch, batch)
                self._batch = None
                seconds = (time.monotonic() - started) / len(batch)
                weight = _SMOOTHING if self._seconds_per_question else 1.0
                self._seconds_per_question += weight * (seconds - self._seconds_per_question)
                self._reject_late_jobs()

    def _seconds_until(self, position: int) -> float:
        """Estimated seconds until the running batch and ``position`` jobs after it are answered."""
        started, size = self._batch or (0.0, 0)
        running = max(0.0, started + size * self._seconds_per_question - time.monotonic())
        return running + position * self._seconds_per_question

    def _reject_late_jobs(self) -> None:
        """Reject jobs that would miss their deadline. The first one stays, since estimates may be wrong."""
        now, kept = time.monotonic(), 0
        for job in list(self._queue):
            if kept and now + self._seconds_until(kept + 1) > job.arrived + self._settings.deadline:
                self._queue.remove(job)
                job.publish(self._overloaded())
            else:
                kept += 1

    def _overloaded(self) -> OverloadedError:
        # Half of the queue should be answered by then.
        seconds = math.ceil(self._seconds_until(len(self._queue)) / 2)
        return OverloadedError(min(_MAX_RETRY_AFTER, max(1, seconds)))

    async def _batch_is_due(self) -> bool:
        """Wait until a batch should start. False if the queue is empty and the service is stopping."""
        while True:
            self._changed.clear()
            pause = None
            if self._queue:
                pause = self._queue[0].arrived + self._longest_wait - time.monotonic()
                if pause <= 0 or self._stopping or len(self._next_batch()) == self._settings.max_batch:
                    return True
            elif self._stopping:
                return False
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _next_batch(self) -> list[Job]:
        """The job that has waited longest, and those with the same options."""
        options = self._queue[0].options
        return [job for job in self._queue if job.options == options][: self._settings.max_batch]

    def _answer_batch(self, batch: Sequence[Job]) -> None:
        try:
            self._answer(batch)
        except Exception as error:  # a failed batch must not stop the service
            for job in batch:
                job.publish(error)
