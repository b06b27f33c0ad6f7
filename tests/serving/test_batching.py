"""The queue batches jobs with equal options, stays bounded, and loses none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragweave import Answer
from ragweave.serving.batching import AnswerOptions, AnswerReady, Batcher, Job
from ragweave.serving.errors import OverloadedError, UnavailableError
from ragweave.serving.settings import Batching


def options(n_docs: int = 1) -> AnswerOptions:
    return AnswerOptions(n_docs=n_docs, num_beams=1, max_new_tokens=4, formulation="token")


class Worker:
    """Answers with the question itself, after its gate has opened."""

    def __init__(self, *, open_: bool = True) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.begun = threading.Event()
        if open_:
            self.gate.set()

    def __call__(self, jobs: Sequence[Job]) -> None:
        self.begun.set()
        assert self.gate.wait(timeout=30)
        self.batches.append([job.question for job in jobs])
        for job in jobs:
            if job.question == "break":
                raise OSError("the disk is gone")
            job.publish(AnswerReady(Answer(job.question, job.question, 0.0, ())))


@asynccontextmanager
async def running(worker: Worker, **fields):
    batcher = Batcher(worker, Batching(**fields))
    batcher.start()
    yield batcher
    worker.gate.set()
    await batcher.stop()


async def answer_of(job: Job) -> str:
    event = await job.next_event(30)
    assert isinstance(event, AnswerReady)
    return event.answer.answer


def jobs_of(questions: str, n_docs: int = 1) -> list[Job]:
    return [Job(question, options(n_docs)) for question in questions]


def test_jobs_that_arrive_together_share_a_batch():
    worker = Worker()

    async def ask():
        async with running(worker, max_wait=0.2) as batcher:
            jobs = jobs_of("abc")
            for job in jobs:
                batcher.submit([job])
            assert [await answer_of(job) for job in jobs] == ["a", "b", "c"]

    asyncio.run(ask())
    assert worker.batches == [["a", "b", "c"]]


def test_a_full_batch_starts_at_once():
    worker = Worker()

    async def ask():
        async with running(worker, max_wait=1000, max_batch=2) as batcher:
            jobs = jobs_of("ab")
            batcher.submit(jobs)
            assert [await answer_of(job) for job in jobs] == ["a", "b"]

    asyncio.run(ask())


def test_waiting_for_others_leaves_time_for_the_answer():
    async def ask():
        async with running(Worker(), max_wait=1000, deadline=1) as batcher:
            batcher.submit(jobs := jobs_of("a"))
            assert await answer_of(jobs[0]) == "a"

    asyncio.run(ask())


def test_other_options_form_the_next_batch():
    worker = Worker()

    async def ask():
        async with running(worker, max_wait=0.05) as batcher:
            first, second = jobs_of("ac"), jobs_of("bd", n_docs=2)
            batcher.submit([first[0], second[0], first[1], second[1]])
            for job in (*first, *second):
                await answer_of(job)

    asyncio.run(ask())
    assert worker.batches == [["a", "c"], ["b", "d"]]


def test_a_full_queue_rejects_further_jobs():
    worker = Worker(open_=False)

    async def ask():
        async with running(worker, max_queue=3, max_wait=0) as batcher:
            first = jobs_of("a")
            batcher.submit(first)
            await asyncio.to_thread(worker.begun.wait)
            waiting = jobs_of("bcd")
            batcher.submit(waiting)
            with pytest.raises(OverloadedError, match="again in") as rejected:
                batcher.submit(jobs_of("e"))
            assert int(rejected.value.headers["Retry-After"]) >= 1
            assert batcher.waiting == 3
            worker.gate.set()
            for job in (*first, *waiting):
                await answer_of(job)
            batcher.submit(again := jobs_of("f"))
            assert await answer_of(again[0]) == "f"

    asyncio.run(ask())
    assert sorted(question for batch in worker.batches for question in batch) == list("abcdf")


def test_jobs_that_would_miss_the_deadline_are_rejected():
    worker = Worker(open_=False)

    async def ask():
        async with running(worker, max_wait=0, max_batch=1, deadline=0.5) as batcher:
            asyncio.get_running_loop().call_later(0.6, worker.gate.set)
            batcher.submit(first := jobs_of("a"))
            await answer_of(first[0])
            worker.gate.clear()
            worker.begun.clear()
            # An answer took longer than the deadline, but without others before it, the next may be quicker.
            batcher.submit(second := jobs_of("b"))
            await asyncio.to_thread(worker.begun.wait)
            with pytest.raises(OverloadedError, match="again in"):
                batcher.submit(jobs_of("c"))
            worker.gate.set()
            assert await answer_of(second[0]) == "b"

    asyncio.run(ask())
    assert worker.batches == [["a"], ["b"]]


def test_waiting_jobs_hear_at_once_that_they_would_miss_the_deadline():
    worker = Worker(open_=False)

    async def ask():
        async with running(worker, max_wait=0, max_batch=1, deadline=1) as batcher:
            batcher.submit(jobs := jobs_of("abcd"))
            asyncio.get_running_loop().call_later(0.6, worker.gate.set)
            assert [await answer_of(job) for job in jobs[:2]] == ["a", "b"]
            for job in jobs[2:]:
                with pytest.raises(OverloadedError):
                    await job.next_event(30)

    asyncio.run(ask())
    assert worker.batches == [["a"], ["b"]]


def test_all_jobs_of_a_request_are_queued_or_none():
    worker = Worker(open_=False)

    async def ask():
        async with running(worker, max_queue=2, max_wait=1000) as batcher:
            with pytest.raises(OverloadedError):
                batcher.submit(jobs_of("abc"))
            assert batcher.waiting == 0

    asyncio.run(ask())


def test_cancelled_jobs_leave_the_queue():
    worker = Worker(open_=False)

    async def ask():
        async with running(worker, max_queue=1, max_wait=0) as batcher:
            first, second, third = jobs_of("abc")
            batcher.submit([first])
            await asyncio.to_thread(worker.begun.wait)
            batcher.submit([second])
            batcher.cancel(second)
            batcher.cancel(first)
            assert first.cancelled
            batcher.submit([third])
            worker.gate.set()
            assert await answer_of(third) == "c"

    asyncio.run(ask())
    assert worker.batches == [["a"], ["c"]]


def test_a_failed_batch_does_not_stop_the_next():
    async def ask():
        async with running(Worker(), max_wait=0) as batcher:
            broken = Job("break", options())
            batcher.submit([broken])
            with pytest.raises(OSError, match="the disk is gone"):
                await broken.next_event(30)
            batcher.submit(jobs := jobs_of("a"))
            assert await answer_of(jobs[0]) == "a"

    asyncio.run(ask())


def test_stopping_answers_waiting_jobs_and_accepts_no_more():
    worker = Worker()

    async def ask():
        batcher = Batcher(worker, Batching(max_wait=1000))
        with pytest.raises(UnavailableError):
            batcher.submit(jobs_of("a"))
        batcher.start()
        jobs = jobs_of("abc")
        batcher.submit(jobs)
        await batcher.stop()
        assert [await answer_of(job) for job in jobs] == ["a", "b", "c"]
        with pytest.raises(UnavailableError, match="stopping"):
            batcher.submit(jobs_of("d"))

    asyncio.run(ask())


arrivals = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 2), st.booleans()), max_size=12)


@settings(max_examples=30, deadline=None)
@given(arrivals, st.integers(1, 3))
def test_every_job_is_answered_once(arrivals, max_batch: int):
    worker = Worker()

    async def ask():
        async with running(worker, max_wait=0.001, max_batch=max_batch, max_queue=1000) as batcher:
            sent: list[Job] = []
            for number, (pause, n_docs, alone) in enumerate(arrivals):
                new = [Job(f"{number}-{i}", options(n_docs)) for i in range(1 if alone else 3)]
                batcher.submit(new)
                sent += new
                await asyncio.sleep(pause / 2000)
            assert [await answer_of(job) for job in sent] == [job.question for job in sent]
            return [job.question for job in sent]

    questions = asyncio.run(ask())
    answered = [question for batch in worker.batches for question in batch]
    assert sorted(answered) == sorted(questions)
    assert max((len(batch) for batch in worker.batches), default=0) <= max_batch
