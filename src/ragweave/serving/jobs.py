"""One question on its way through the service, and what happens to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ragweave.pipeline.rag_pipeline import Formulation
from ragweave.provenance.answers import Answer
from ragweave.types import ScoredPassage


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """How a question is answered; questions with equal options are answered together.

    Attributes:
        n_docs: K.
        num_beams: R.
        max_new_tokens: The longest answer, in tokens.
        formulation: "token" or "sequence".
    """

    n_docs: int
    num_beams: int
    max_new_tokens: int
    formulation: Formulation


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The passages of a question were found."""

    passages: Sequence[ScoredPassage]


@dataclass(frozen=True, slots=True)
class Said:
    """So much more of its answer is known."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """Its answer is known."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Failed:
    """It will not be answered."""

    error: Exception


Event = Retrieved | Said | Done | Failed


class Job:
    """A question that is waiting for its answer, or is being answered.

    It is made in an event loop, which hears its events; a worker's thread tells them.

    Args:
        question: The question.
        options: How to answer it.

    Attributes:
        question: The question.
        options: How to answer it.
        arrived: When it came, in seconds of the monotonic clock.
    """

    def __init__(self, question: str, options: AnswerOptions) -> None:
        self.question = question
        self.options = options
        self.arrived = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._abandoned = False

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._abandoned

    def seconds_left(self, deadline: float) -> float:
        """How many of so many seconds since it came are left; 0 at least."""
        return max(0.0, self.arrived + deadline - time.monotonic())

    def abandon(self) -> None:
        """Let it go: its answer ends at the next token."""
        self._abandoned = True

    def tell(self, event: Event) -> None:
        """Say what happened; from any thread."""
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def next_event(self) -> Event:
        """Wait for what happens next."""
        return await self._events.get()
