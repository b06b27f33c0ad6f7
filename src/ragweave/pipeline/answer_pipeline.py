"""AnswerPipeline: questions in, answers with their provenance out, for every kind of generator.

The command line, the service and evaluation use this one interface.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch

from ragweave.configuration import RagConfig
from ragweave.encoders.text_encoder import TextEncoder
from ragweave.errors import ConfigurationError, GeneratorError, ShapeError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
from ragweave.modeling.passage_cache import PassageCache
from ragweave.pipeline.conversation import Conversation, rewritten_by
from ragweave.provenance.answers import Answer
from ragweave.provenance.confidence import CalibratedConfidence, judged, nothing_found
from ragweave.retrieval.rag_retriever import RagRetriever
from ragweave.retrieval.retriever import RetrievalResult, Retriever
from ragweave.types import ANSWER_FORMULATIONS, AnswerFormulation

if TYPE_CHECKING:
    from ragweave.pipeline.streaming import AnswerCallback, BatchCallback

T = TypeVar("T")


class AnswerPipeline(ABC):
    """Retrieves passages for questions, and answers from them.

    Attributes:
        model: The networks; ``None`` if a server generates.
        config: Defaults of retrieval and decoding.
        retriever: Holds the index.
        encoder: Encodes questions.
        extractive: Whether answers are runs of words of the passages, by default.
        confidence: Estimates how likely an answer is to be right.
        min_confidence: The lowest confidence at which to give an answer, by default.
        passage_cache: Keys and values of passages from a causal generator; ``None`` without a cache.
        formulations: The supported formulations.
    """

    model: Any = None
    config: RagConfig
    retriever: RagRetriever
    encoder: TextEncoder
    extractive: bool = False
    confidence: CalibratedConfidence
    min_confidence: float
    passage_cache: PassageCache | None = None
    formulations: tuple[AnswerFormulation, ...] = ANSWER_FORMULATIONS

    @overload
    def __call__(self, questions: str, **options: Any) -> Answer: ...

    @overload
    def __call__(self, questions: Sequence[str], **options: Any) -> list[Answer]: ...

    def __call__(self, questions: str | Sequence[str], **options: Any) -> Answer | list[Answer]:
        """Answer one or several questions.

        Args:
            questions: A question, or a sequence of them.
            **options: Arguments of `stream`.

        Returns:
            An `Answer` for a string, a list in the order of the questions for a sequence.

        Raises:
            QuestionError: A question is empty, or longer than the encoder reads.
            ConfigurationError: An option has an invalid value.
            GeneratorError: A server fails to answer a question. `stream` with a callback that has ``on_error``
                continues with the other questions.
        """
        if isinstance(questions, str):
            return next(answer for _, answer in self.stream([questions], **options))
        answers = dict(self.stream(questions, **options))
        return [answers[position] for position in range(len(questions))]

    def stream(
        self,
        questions: Sequence[str],
        *,
        n_docs: int | None = None,
        num_beams: int = 1,
        max_new_tokens: int = 32,
        batch_size: int = 8,
        extractive: bool | None = None,
        min_confidence: float | None = None,
        where: str | None = None,
        retrieved: RetrievalResult | None = None,
        progress: Callable[[int], None] | None = None,
        prefetch: bool | None = None,
        callback: AnswerCallback | None = None,
        **generate_options: Any,
    ) -> Iterator[tuple[int, Answer]]:
        """Answer questions batch by batch, questions of similar length together.

        Args:
            questions: The questions.
            n_docs: K, passages per question; the model's default if not given.
            num_beams: R, beams per question (RAG-Token) or per passage (RAG-Sequence).
            max_new_tokens: The longest answer, in tokens.
            batch_size: Number of questions to answer together.
            extractive: Whether answers must be runs of words of the passages; the pipeline's default if not given.
            min_confidence: The lowest confidence at which to give an answer; the pipeline's default if not given.
                Below it, the answer is `NO_ANSWER`.
            where: A condition that passages must meet, in addition to that of the search settings.
            retrieved: The passages of the questions, from `retrieve` or `text_retriever`; the first K are used.
            progress: Called after every batch with the number of questions it answered.
            prefetch: Whether a thread encodes and retrieves the next batch while one is answered. By default only on
                an accelerator; on a CPU, both would share the same cores.
            callback: Receives passages and text as they become known, and may stop a question, whose answer is then
                the text so far. See `ragweave.pipeline.streaming`. If it has a method ``on_error``, that receives the
                `GeneratorError` of a question that a server does not answer, and the others go on.
            **generate_options: Arguments of the model's ``generate``.

        Yields:
            A question's position in ``questions`` and its answer.

        Raises:
            QuestionError: A question is empty, or longer than the encoder reads.
            ConfigurationError: An option has an invalid value.
            GeneratorError: A server has no answer to a question.
            ShapeError: ``retrieved`` belongs to another number of questions.
        """
        if retrieved is not None and len(retrieved) != len(questions):
            raise ShapeError(f"retrieved holds {len(retrieved)} questions, expected {len(questions)}.")
        _check_positive(
            n_docs=n_docs, num_beams=num_beams, max_new_tokens=max_new_tokens, batch_size=batch_size
        )
        lengths = [self.encoder.question_length(question) for question in questions]
        order = sorted(range(len(questions)), key=lambda position: lengths[position])
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        prefetch = self._prefetches if prefetch is None else prefetch
        extractive = self.extractive if extractive is None else extractive
        threshold = self.min_confidence if min_confidence is None else min_confidence
        if not 0 <= threshold <= 1:
            raise ConfigurationError(f"min_confidence is {threshold}: give a number from 0 to 1.")

        if callback is not None:
            from ragweave.pipeline.streaming import BatchCallback  # most calls wait for the whole answer

        def prepare(positions: list[int]) -> Any:
            texts = [questions[position].strip() for position in positions]
            if retrieved is None:
                result = self.retrieve(texts, n_docs=n_docs, where=where)
            else:
                k = min(n_docs or self.config.n_docs, retrieved.rows.shape[1])
                result = retrieved.select(positions, k)
            return self._prepare(texts, result, extractive=extractive, max_new_tokens=max_new_tokens)

        for positions, batch in zip(batches, in_order(prepare, batches, prefetch=prefetch), strict=True):
            empty = batch.retrieved.is_empty
            whole = threshold > 0 or bool(empty.any())
            report = None if callback is None else BatchCallback(callback, positions, whole=whole)
            if report is not None:
                report.passages(batch.retrieved.passages)
            results = self._answer(
                batch, report, num_beams=num_beams, max_new_tokens=max_new_tokens, **generate_options
            )
            answers: dict[int, Answer] = {}
            for b, (result, is_empty) in enumerate(zip(results, empty.tolist(), strict=True)):
                if not isinstance(result, Answer):
                    failed(callback, positions[b], result)
                else:
                    answers[b] = (
                        nothing_found(result) if is_empty else judged(result, self.confidence, threshold)
                    )
            if report is not None:
                report.finish(answers)
            yield from ((positions[b], answer) for b, answer in answers.items())
            if progress is not None:
                progress(len(positions))

    def chat(self) -> Conversation:
        """A conversation, whose follow-ups may refer to earlier questions and answers."""
        return Conversation(self)

    def rewrite(self, turns: Sequence[tuple[str, str]], question: str) -> str:
        """A follow-up, rewritten by the generator to stand alone; empty if it cannot. See `standalone_question`."""
        return rewritten_by(self, turns, question)

    def retrieve(
        self, questions: Sequence[str], *, n_docs: int | None = None, where: str | None = None
    ) -> RetrievalResult:
        """Retrieve passages without answering.

        Args:
            questions: B questions.
            n_docs: K, passages per question; the model's default if not given. It is at most the number of passages
                in the knowledge base.
            where: A condition that passages must meet, in addition to that of the search settings.

        Raises:
            QuestionError: A question is empty, or longer than the encoder reads.
            ConfigurationError: ``n_docs`` is below 1, or the condition is invalid or names an unknown field.
        """
        _check_positive(n_docs=n_docs)
        retriever = self.text_retriever if where is None else self.text_retriever.narrowed(where)
        wanted = n_docs or int(self.config.n_docs)
        size = len(retriever.index) if isinstance(retriever.index, Sized) else wanted
        with torch.inference_mode():
            return retriever.retrieve(questions, min(wanted, max(size, 1)))

    @property
    def text_retriever(self) -> Retriever:
        """The retriever of this pipeline's index and encoder; `refresh` does not change it."""
        config = self.config
        return Retriever(
            self.retriever.index, self.encoder, config.doc_score_scale, config.retrieval_batch_size
        )

    @property
    def knowledge_base(self) -> KnowledgeBase:
        """The version of the knowledge base that the pipeline answers from.

        Raises:
            ConfigurationError: The pipeline answers from another kind of index.
        """
        index = self.retriever.index
        if not isinstance(index, KnowledgeBaseIndex):
            raise ConfigurationError("This pipeline has no knowledge base: load it with knowledge_base=... .")
        return index.base

    def refresh(self) -> bool:
        """Answer the next batches from the current version of the knowledge base.

        A batch that is being answered keeps the version it started with.

        Returns:
            Whether there was another version.

        Raises:
            KnowledgeBaseError: The current version is damaged; the pipeline keeps its version.
            EncoderMismatchError: It was embedded with another encoder.
        """
        index = self.retriever.index
        if not isinstance(index, KnowledgeBaseIndex):
            return False
        latest = index.base.latest()
        if latest is index.base:
            return False
        if latest.manifest.encoder != index.base.manifest.encoder:
            latest.check_encoder(self.encoder)
        self.retriever.index = index.over(latest)
        return True

    @property
    @abstractmethod
    def formulation(self) -> AnswerFormulation:
        """The formulation that this pipeline answers under."""

    @abstractmethod
    def with_formulation(self, formulation: AnswerFormulation) -> AnswerPipeline:
        """A pipeline of the same networks under another formulation; this one if it is the same.

        Both share retriever and encoder, so `refresh` of either affects both.

        Raises:
            ConfigurationError: It cannot answer under this formulation.
        """

    @property
    @abstractmethod
    def _prefetches(self) -> bool:
        """Whether it saves time to retrieve for the next batch during the current one."""

    @abstractmethod
    def _prepare(
        self, questions: list[str], retrieved: RetrievalResult, *, extractive: bool, max_new_tokens: int
    ) -> Any:
        """Prepare a batch; may run in a different thread than `_answer`."""

    @abstractmethod
    def _answer(
        self,
        batch: Any,
        callback: BatchCallback | None,
        *,
        num_beams: int,
        max_new_tokens: int,
        **options: Any,
    ) -> Sequence[Answer | GeneratorError]:
        """Answer a batch of `_prepare`; return the error of each question that fails."""


def failed(callback: AnswerCallback | None, position: int, error: GeneratorError) -> None:
    """Report that a question failed, or raise the error if the callback has no ``on_error``."""
    report = getattr(callback, "on_error", None)
    if report is None:
        raise error
    report(position, error)


def _check_positive(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigurationError(f"{name} is {value}; it must be 1 or more.")


def in_order(prepare: Callable[[list[int]], T], batches: list[list[int]], *, prefetch: bool) -> Iterator[T]:
    """Prepare batches one after another; with ``prefetch``, each while the previous one is in use."""
    if not prefetch:
        yield from map(prepare, batches)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ragweave-prefetch") as pool:
        pending = pool.submit(prepare, batches[0]) if batches else None
        for upcoming in [*batches[1:], None]:
            if pending is None:
                return
            batch = pending.result()
            pending = None if upcoming is None else pool.submit(prepare, upcoming)
            yield batch


def concatenated(docs: Sequence[dict[str, Any]], title_sep: str) -> list[dict[str, Any]]:
    """Join the K passages of each question, best first: a title, then all texts with their titles between them."""
    joined = []
    for doc in docs:
        parts = [part for part in zip(doc["title"], doc["text"], strict=True) if any(part)] or [("", "")]
        first, *others = parts
        texts = [first[1], *(f"{title}{title_sep}{text}" for title, text in others)]
        joined.append({"title": [first[0]], "text": ["\n\n".join(texts)]})
    return joined
