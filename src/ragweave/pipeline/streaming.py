"""Answers while they are being made: their passages, then their text piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ragweave.pipeline.rag_pipeline import RagPipeline
    from ragweave.provenance.answers import Answer
    from ragweave.types import ScoredPassage


class Listener(Protocol):
    """Follows a pipeline's work; questions are named by their place in what was asked."""

    def retrieved(self, place: int, passages: Sequence[ScoredPassage]) -> None:
        """Hear what was found for a question, best first."""
        ...

    def said(self, place: int, text: str) -> None:
        """Hear what comes next in the answer to a question; all texts together are the answer."""
        ...

    def stopped(self, place: int) -> bool:
        """Say whether a question need not be answered any further; asked at every token."""
        ...


@dataclass(frozen=True, slots=True)
class _Failure:
    error: BaseException


class _Sender:
    """Puts what it hears of a single question into a queue."""

    def __init__(self) -> None:
        self.events: Queue[str | Answer | _Failure] = Queue()
        self.gone = Event()

    def retrieved(self, place: int, passages: Sequence[ScoredPassage]) -> None:
        """Pass over it: the answer will have the passages."""

    def said(self, place: int, text: str) -> None:
        self.events.put(text)

    def stopped(self, place: int) -> bool:
        return self.gone.is_set()


def stream_answer(pipeline: RagPipeline, question: str, **options: Any) -> Iterator[str | Answer]:
    """Answer a question and give its answer piece by piece.

    Greedy decoding of RAG-Token decides token by token. Beams and RAG-Sequence decide at the end: then the answer
    comes as one piece. Who stops listening stops the work.

    Args:
        pipeline: What answers.
        question: The question.
        **options: Arguments of `RagPipeline.stream`.

    Yields:
        Texts that together are the answer; last, the `Answer`.

    Raises:
        QuestionError: The question is empty, or longer than the encoder reads.
        ConfigurationError: An option has a value that cannot work.

    Example:
        ```python
        for piece in stream_answer(pipeline, "What is the capital of Mongolia?"):
            if isinstance(piece, str):
                sys.stdout.write(piece)
        ```
    """
    sender = _Sender()

    def work() -> None:
        try:
            for _, answer in pipeline.stream([question], listener=sender, **options):
                sender.events.put(answer)
        except BaseException as error:  # raised again where it is listened to
            sender.events.put(_Failure(error))

    thread = Thread(target=work, name="ragweave-stream", daemon=True)
    thread.start()
    try:
        while True:
            event = sender.events.get()
            if isinstance(event, _Failure):
                raise event.error
            yield event
            if not isinstance(event, str):
                return
    finally:
        sender.gone.set()
        thread.join()
