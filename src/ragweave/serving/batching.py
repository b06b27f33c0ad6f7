"""Questions of several requests answered together, and no more waiting than can be answered."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ragweave.serving.errors import OverloadedError, UnavailableError
from ragweave.serving.jobs import Failed, Job
from ragweave.serving.settings import Batching

_LONGEST_RETRY = 60
_NEWEST = 0.3  # what the newest batch counts in the mean time of a question


class Batcher:
    """A bounded queue of questions, and one thread that answers them batch by batch.

    A batch begins with the question that has waited longest; others that are to be answered in the same way join it,
    up to ``max_batch``, until ``max_wait`` after the first came. While a batch is being answered the next one fills.

    Args:
        answer: Answers some questions, in the worker's thread, and tells each job what became of it.
        settings: How questions are batched.
        began: Called with the size of each batch when it begins.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Job]], None],
        settings: Batching,
        *,
        began: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._answer = answer
        self._settings = settings
        self._began = began
        self._waiting: deque[Job] = deque()
        self._changed = asyncio.Event()
        self._stopping = False
        self._seconds_each = 1.0
        self._running: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many questions wait; those that are being answered do not count."""
        return len(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether questions are being answered."""
        return self._running is not None and not self._running.done() and not self._stopping

    def start(self) -> None:
        """Begin to answer; in the event loop of the service."""
        self._running = asyncio.create_task(self._run(), name="ragweave-batcher")

    async def stop(self) -> None:
        """Answer all that waits, and end."""
        self._stopping = True
        self._changed.set()
        if self._running is not None:
            await self._running

    def submit(self, jobs: Sequence[Job]) -> None:
        """Let questions wait for their answers: all of them, or none.

        Raises:
            OverloadedError: There is no room for all of them.
            UnavailableError: The service is ending.
        """
        if not self.ready:
            raise UnavailableError("The service is stopping: ask it again when it is back.")
        if len(self._waiting) + len(jobs) > self._settings.max_queue:
            raise OverloadedError(self._retry_after())
        self._waiting.extend(jobs)
        self._changed.set()

    def abandon(self, job: Job) -> None:
        """Let a question go, wherever it is."""
        job.abandon()
        if job in self._waiting:
            self._waiting.remove(job)

    def _retry_after(self) -> int:
        """When about half of the queue will have been answered, in whole seconds."""
        return min(_LONGEST_RETRY, max(1, math.ceil(self._seconds_each * len(self._waiting) / 2)))

    async def _run(self) -> None:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ragweave-answers") as pool:
            while await self._gathered():
                batch = self._take()
                self._began(len(batch))
                started = time.monotonic()
                await asyncio.get_running_loop().run_in_executor(pool, self._work, batch)
                each = (time.monotonic() - started) / len(batch)
                self._seconds_each += _NEWEST * (each - self._seconds_each)

    async def _gathered(self) -> bool:
        """Wait until a batch should begin; false if none ever will."""
        while True:
            self._changed.clear()
            pause = None
            if self._waiting:
                pause = self._waiting[0].arrived + self._settings.max_wait - time.monotonic()
                if pause <= 0 or self._stopping or len(self._alike()) == self._settings.max_batch:
                    return True
            elif self._stopping:
                return False
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _alike(self) -> list[Job]:
        """The questions that can be answered with the one that has waited longest."""
        options = self._waiting[0].options
        return [job for job in self._waiting if job.options == options][: self._settings.max_batch]

    def _take(self) -> list[Job]:
        batch = self._alike()
        for job in batch:
            self._waiting.remove(job)
        return batch

    def _work(self, batch: Sequence[Job]) -> None:
        try:
            self._answer(batch)
        except Exception as error:  # a batch that fails must not end the service
            for job in batch:
                job.tell(Failed(error))
