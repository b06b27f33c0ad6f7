"""Runs an evaluation that can be interrupted: questions in, predictions and metrics out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ragweave.errors import ConfigurationError, DataError
from ragweave.evaluation.metric_values import correctness, metric_values, summarize
from ragweave.evaluation.run_folder import (
    Prediction,
    RankedPassage,
    ReadPassage,
    RunFolder,
    RunSettings,
    read_json,
    read_predictions,
    write_json,
    write_predictions,
)
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
from ragweave.matching import has_answer
from ragweave.pipeline.answer_pipeline import AnswerPipeline
from ragweave.provenance.answers import Answer
from ragweave.provenance.confidence import CalibratedConfidence, fit_confidence, signals
from ragweave.retrieval.index_protocol import Hits, Index
from ragweave.retrieval.retriever import Retriever
from ragweave.types import Example

CHUNK = 128
"""The number of questions to retrieve for before answering them; bounds the memory."""


def run_evaluation(
    examples: Sequence[Example],
    folder: RunFolder,
    *,
    settings: RunSettings,
    description: dict[str, Any],
    retriever: Retriever | None,
    pipeline: AnswerPipeline | None,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Evaluate, or resume an interrupted run; see `ragweave.evaluation.evaluate.evaluate`.

    Only a run with the same description and settings is resumed. Without a pipeline only retrieval is measured.
    ``progress`` is called with the number of newly finished questions and the means so far.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        DataError: The folder contains a different run, or predictions for other questions.
        QuestionError: A question is longer than the encoder reads.
    """
    questions = {example.id: example.question for example in examples}
    done = folder.begin({**description, "settings": asdict(settings)}, questions)
    for example in examples:
        before = done.get(example.id)
        golds = (example.answers, example.gold_passages, example.unanswerable)
        if before is not None and (before.golds, before.gold_passages, before.unanswerable) != golds:
            raise DataError(
                f"The prediction for '{example.id}' in {folder.predictions} has other gold answers or passages than "
                "the data: restore the file, choose another --output, or add --overwrite to start again."
            )
    seconds_file = folder.elapsed if folder.elapsed.exists() else folder.metrics
    seconds = float(read_json(seconds_file)["seconds"]) if seconds_file.exists() else 0.0
    remaining = [example for example in examples if example.id not in done]
    means = _RunningMeans(settings)
    means.add(list(done.values()))
    if progress is not None:
        progress(len(done), means.current())
    gold_hits = None
    if settings.gold and retriever is not None:
        gold_hits = _gold_hits(remaining, retriever.index, settings.n_docs)
    with folder.predictions.open("ab") as file:
        for start in range(0, len(remaining), CHUNK):
            started = time.perf_counter()
            for batch in _predict(remaining[start : start + CHUNK], settings, retriever, pipeline, gold_hits):
                file.write("".join(f"{prediction.to_json()}\n" for prediction in batch).encode())
                file.flush()
                done |= {prediction.id: prediction for prediction in batch}
                means.add(batch)
                if progress is not None:
                    progress(len(batch), means.current())
            seconds += time.perf_counter() - started
            write_json(folder.elapsed, {"seconds": seconds})
    # Batches finish out of order, so the predictions are rewritten in the order of the data.
    predictions = [done[example.id] for example in examples]
    write_predictions(folder.predictions, predictions)
    summary = {**summarize(predictions, settings), "seconds": round(seconds, 3)}
    if pipeline is not None and pipeline.passage_cache is not None:
        summary["passage_cache_hits"] = pipeline.passage_cache.hit_rate
    write_json(folder.metrics, summary)
    folder.elapsed.unlink(missing_ok=True)
    return summary


def recalculate(folder: RunFolder) -> dict[str, Any]:
    """Compute the metrics of a run again, without the model. Raises `DataError` if the run is not finished."""
    before = read_json(folder.metrics)
    kept: dict[str, Any] = {
        name: before[name] for name in ("seconds", "passage_cache_hits") if name in before
    }
    summary = {**summarize(read_predictions(folder.predictions), folder.settings()), **kept}
    write_json(folder.metrics, summary)
    return summary


def calibrate(folder: RunFolder) -> CalibratedConfidence:
    """Fit a calibration on the predictions of a finished run.

    Raises `DataError` if the folder contains none, or one without signals, and `ConfigurationError` if no metric
    says which answers are right, or all are right, or all are wrong.
    """
    read_json(folder.metrics)
    predictions = read_predictions(folder.predictions)
    if not all(prediction.signals for prediction in predictions):
        raise DataError(f"{folder.root} has no signals to calibrate on: run it again with --overwrite.")
    correct = correctness(predictions, metric_values(predictions, folder.settings()))
    if not correct or any(map(math.isnan, correct)):
        raise ConfigurationError(
            "Calibration needs to know which answers are right: choose --metrics exact_match, and data whose "
            "questions have answers or are marked as unanswerable."
        )
    return fit_confidence(
        [prediction.signals for prediction in predictions], [value == 1 for value in correct]
    )


class _RunningMeans:
    """The means of all metrics so far."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, predictions: Sequence[Prediction]) -> None:
        for name, values in metric_values(predictions, self._settings).items():
            applicable = [value for value in values if not math.isnan(value)]
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + sum(applicable), count + len(applicable))

    def current(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self._sums.items() if count}


def _predict(
    examples: Sequence[Example],
    settings: RunSettings,
    retriever: Retriever | None,
    pipeline: AnswerPipeline | None,
    gold_hits: Callable[[Sequence[Example]], Hits] | None,
) -> Iterator[list[Prediction]]:
    """Retrieve and answer; yield batches of predictions as they finish."""
    questions = [example.question for example in examples]
    retrieved = None
    ranked: list[tuple[RankedPassage, ...]] = [()] * len(examples)
    if retriever is not None:
        retrieved = retriever.retrieve(questions, settings.retrieval_depth)
        ranked = [
            _ranked_passages(example, doc, settings)
            for example, doc in zip(examples, retrieved.docs, strict=True)
        ]
        if gold_hits is not None:
            retrieved = retriever.score(questions, gold_hits(examples))
    if pipeline is None:
        yield [
            _prediction(example, None, passages) for example, passages in zip(examples, ranked, strict=True)
        ]
        return
    options: dict[str, Any] = {} if settings.decoding is None else {"decoding": settings.decoding}
    batch: list[Prediction] = []
    for position, answer in pipeline.stream(
        questions,
        n_docs=settings.n_docs,
        num_beams=settings.num_beams,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        extractive=settings.extractive,
        min_confidence=settings.min_confidence,
        retrieved=retrieved,
        **options,
    ):
        batch.append(_prediction(examples[position], answer, ranked[position]))
        if len(batch) == settings.batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _gold_hits(examples: Sequence[Example], index: Index, n_docs: int) -> Callable[[Sequence[Example]], Hits]:
    """A function from questions to their gold passages, whose ids are looked up all at once."""
    if not isinstance(index, KnowledgeBaseIndex):
        raise ConfigurationError("Gold passages are looked up in a knowledge base: retrieve from one.")
    rows = index.base.rows_of({name for example in examples for name in example.gold_passages})

    def hits(chunk: Sequence[Example]) -> Hits:
        golds = [[row for name in example.gold_passages for row in rows[name]] for example in chunk]
        return index.hits_for_rows(golds, n_docs)

    return hits


def _ranked_passages(
    example: Example, doc: dict[str, Any], settings: RunSettings
) -> tuple[RankedPassage, ...]:
    def contains_answer(text: str) -> bool:
        return bool(example.answers) and has_answer(text, example.answers, patterns=settings.patterns)

    return tuple(
        RankedPassage(name, document, contains_answer(text))
        for name, document, text in zip(doc["id"], doc["document_id"], doc["text"], strict=True)
        if name  # a missing passage has an empty id
    )


def _prediction(example: Example, answer: Answer | None, ranked: tuple[RankedPassage, ...]) -> Prediction:
    return Prediction(
        id=example.id,
        question=example.question,
        golds=example.answers,
        gold_passages=example.gold_passages,
        answer=None if answer is None else answer.best_guess or answer.answer,
        score=None if answer is None else answer.score,
        passages=tuple(
            ReadPassage(
                id=passage.id,
                document_id=passage.id.rpartition("#")[0],
                title=passage.title,
                text=passage.text,
                source=passage.source,
                doc_score=passage.doc_score,
                posterior=passage.posterior,
            )
            for passage in (() if answer is None else answer.passages)
            if passage.id  # closed book reads one empty passage without an id
        ),
        retrieved=ranked,
        confidence=None if answer is None else answer.confidence,
        answered=answer is None or answer.answered,
        unanswerable=example.unanswerable,
        signals={} if answer is None else signals(answer),
    )
