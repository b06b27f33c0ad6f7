"""Streaming of answers: callbacks for passages and text, and `stream_answer`.

Notation used for tensor shapes: B questions, K passages per question, R rows of the decoder per question.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from queue import Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from ragweave.modeling.generation import RagForGeneration
from ragweave.modeling.token import RagTokenForGeneration
from ragweave.provenance.answers import Answer
from ragweave.retrieval.retriever import by_prior
from ragweave.types import ScoredPassage

if TYPE_CHECKING:
    from ragweave.pipeline.answer_pipeline import AnswerPipeline

_INCOMPLETE = "\ufffd"  # the decoded text of an incomplete character


class AnswerCallback(Protocol):
    """Receives the passages and the text of each question, which is identified by its position."""

    def on_passages(self, position: int, passages: Sequence[ScoredPassage]) -> None:
        """The passages of a question, best first."""
        ...

    def on_text(self, position: int, text: str) -> None:
        """The next piece of an answer; the pieces together are the answer."""
        ...

    def should_stop(self, position: int) -> bool:
        """Whether to stop answering a question; called at every token."""
        ...


class BatchCallback:
    """Connects a callback to the generation of one batch of B questions.

    Args:
        callback: The callback.
        positions: The questions' positions among all questions.
        whole: Whether to report each answer in one piece, because it may be withheld at the end.
    """

    def __init__(self, callback: AnswerCallback, positions: Sequence[int], *, whole: bool = False) -> None:
        self._callback = callback
        self._positions = positions
        self._whole = whole
        self._streamer: TokenStreamer | None = None

    def passages(self, passages: Sequence[Sequence[ScoredPassage | None]]) -> None:
        """Report the passages of each question."""
        for position, candidates in zip(self._positions, passages, strict=True):
            self._callback.on_passages(position, by_prior(candidates))

    def should_stop(self, b: int) -> bool:
        """Whether to stop answering question b of the batch."""
        return self._callback.should_stop(self._positions[b])

    def begin(self, model: RagForGeneration, tokenizer: Any, options: dict[str, Any]) -> None:
        """Add the hooks of ``generate`` to its options."""
        callback, positions = self._callback, self._positions
        self._streamer = TokenStreamer(
            len(positions),
            tokenizer,
            model.end_token_ids,
            lambda b, text: callback.on_text(positions[b], text),
        )
        stop = StopQuestions(len(positions), self.should_stop)
        options["stopping_criteria"] = StoppingCriteriaList([*options.get("stopping_criteria", ()), stop])
        # Beam search and RAG-Sequence may still change the first token of an answer at its last token.
        if isinstance(model, RagTokenForGeneration) and options["num_beams"] == 1 and not self._whole:
            options["streamer"] = self._streamer

    def finish(self, answers: Mapping[int, Answer]) -> None:
        """Report the rest of the answers, by their numbers in the batch."""
        if self._streamer is not None:
            self._streamer.finish([answer.answer for answer in answers.values()])
            return
        for b, answer in answers.items():
            self._callback.on_text(self._positions[b], answer.answer)


class TokenStreamer(BaseStreamer):
    """Reports the texts of B answers as their tokens are decided.

    Args:
        n_questions: B.
        tokenizer: The generator's tokenizer.
        end_tokens: Token ids that end an answer.
        on_text: Called with a question's number and the next piece of its answer.
    """

    def __init__(
        self,
        n_questions: int,
        tokenizer: Any,
        end_tokens: Collection[int],
        on_text: Callable[[int, str], None],
    ) -> None:
        self._tokenizer = tokenizer
        self._end_tokens = end_tokens
        self._on_text = on_text
        self._tokens: list[list[int]] = [[] for _ in range(n_questions)]
        self._ended = [False] * n_questions
        self._reported = [""] * n_questions
        self._started = False

    def put(self, value: Tensor) -> None:
        """Take the next token of every answer, (B,). The first call brings the decoder's start tokens."""
        if not self._started:
            self._started = True
            return
        for question, token in enumerate(value.flatten().tolist()):
            if self._ended[question]:
                continue
            self._ended[question] = token in self._end_tokens
            self._tokens[question].append(token)
            text = self._tokenizer.decode(self._tokens[question], skip_special_tokens=True)
            self._report(question, text.strip().rstrip(_INCOMPLETE))

    def end(self) -> None:
        """Do nothing: `finish` reports the rest of the answers."""

    def finish(self, answers: Sequence[str]) -> None:
        """Report the rest of each answer."""
        for question, answer in enumerate(answers):
            self._report(question, answer)

    def _report(self, question: int, text: str) -> None:
        reported = self._reported[question]
        if len(text) > len(reported) and text.startswith(reported):
            self._reported[question] = text
            self._on_text(question, text[len(reported) :])


class StopQuestions(StoppingCriteria):
    """Ends the answers of stopped questions.

    Args:
        n_questions: B.
        should_stop: Whether to stop a question, given by its number.
    """

    def __init__(self, n_questions: int, should_stop: Callable[[int], bool]) -> None:
        self._n_questions = n_questions
        self._should_stop = should_stop

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        """Which of B*R rows end here, bool, (B*R,)."""
        stopped = [self._should_stop(question) for question in range(self._n_questions)]
        rows = input_ids.shape[0] // self._n_questions
        return torch.tensor(stopped, device=input_ids.device).repeat_interleave(rows)


class _QueueCallback:
    """Puts the text of a single question into a queue."""

    def __init__(self) -> None:
        self.events: Queue[str | Answer | BaseException] = Queue()
        self.closed = Event()

    def on_passages(self, position: int, passages: Sequence[ScoredPassage]) -> None:
        """Ignore them: the answer holds the passages."""

    def on_text(self, position: int, text: str) -> None:
        self.events.put(text)

    def should_stop(self, position: int) -> bool:
        return self.closed.is_set()


def stream_answer(pipeline: AnswerPipeline, question: str, **options: Any) -> Iterator[str | Answer]:
    """Answer a question piece by piece.

    Greedy decoding of RAG-Token decides token by token. Beam search and RAG-Sequence decide at the end, so the answer
    comes as one piece. Closing the iterator cancels the generation.

    Args:
        pipeline: The pipeline.
        question: The question.
        **options: Arguments of `RagPipeline.stream`.

    Yields:
        Texts that together are the answer; last, the `Answer`.

    Raises:
        QuestionError: The question is empty, or longer than the encoder reads.
        ConfigurationError: An option has an invalid value.

    Example:
        ```python
        for piece in stream_answer(pipeline, "What is the capital of Mongolia?"):
            if isinstance(piece, str):
                sys.stdout.write(piece)
        ```
    """
    callback = _QueueCallback()

    def work() -> None:
        try:
            for _, answer in pipeline.stream([question], callback=callback, **options):
                callback.events.put(answer)
        except BaseException as error:  # raised again in the thread of the caller
            callback.events.put(error)

    thread = Thread(target=work, name="ragweave-stream", daemon=True)
    thread.start()
    try:
        while True:
            event = callback.events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if not isinstance(event, str):
                return
    finally:
        callback.closed.set()
        thread.join()
