"""An evaluation: questions in, predictions and figures out, interrupted and gone on with at will."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ragweave.evaluation.data import Example
from ragweave.evaluation.figures import figures_of, values
from ragweave.evaluation.folder import RunFolder, RunSettings, read_json, write_json
from ragweave.evaluation.metrics import has_answer
from ragweave.evaluation.predictions import (
    Prediction,
    RankedPassage,
    ReadPassage,
    read_predictions,
    write_predictions,
)

if TYPE_CHECKING:
    from ragweave.pipeline.rag_pipeline import RagPipeline
    from ragweave.provenance.answers import Answer
    from ragweave.retrieval.finding import PassageFinder

CHUNK = 128
"""How many questions are retrieved for before they are answered: what is in memory at a time."""


def run(
    examples: Sequence[Example],
    folder: RunFolder,
    *,
    settings: RunSettings,
    about: dict[str, Any],
    finder: PassageFinder | None,
    pipeline: RagPipeline | None,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Evaluate, from where it was interrupted.

    Args:
        examples: The questions.
        folder: Where the files go.
        settings: What is done with every question.
        about: What else makes the run what it is: model, knowledge base, data. A run that differs in any of it is not
            gone on with.
        finder: What finds passages; ``None`` for closed book.
        pipeline: What answers; ``None`` where only retrieval is measured.
        progress: Called with how many more questions are done, and the means so far.

    Returns:
        The figures, which are in ``metrics.json`` too.

    Raises:
        DataError: The folder holds another run, or predictions for other questions.
        QuestionError: A question is longer than the encoder reads.
    """
    questions = {example.id: example.question for example in examples}
    done = folder.begin({**about, "settings": asdict(settings)}, questions)
    clock = folder.clock if folder.clock.exists() else folder.metrics
    seconds = float(read_json(clock)["seconds"]) if clock.exists() else 0.0
    left = [example for example in examples if example.id not in done]
    means = _Means(settings)
    means.add(list(done.values()))
    if progress is not None:
        progress(len(done), means.now())
    given = _gold_rows(left, finder) if settings.gold and finder is not None else None
    with folder.predictions.open("ab") as file:
        for start in range(0, len(left), CHUNK):
            begun = time.perf_counter()
            for batch in _evaluated(left[start : start + CHUNK], settings, finder, pipeline, given):
                file.write("".join(f"{prediction.to_json()}\n" for prediction in batch).encode())
                file.flush()
                done |= {prediction.id: prediction for prediction in batch}
                means.add(batch)
                if progress is not None:
                    progress(len(batch), means.now())
            seconds += time.perf_counter() - begun
            write_json(folder.clock, {"seconds": seconds})
    # In the order of the data, however they were batched.
    predictions = [done[example.id] for example in examples]
    write_predictions(folder.predictions, predictions)
    figures = {**figures_of(predictions, settings), "seconds": round(seconds, 3)}
    write_json(folder.metrics, figures)
    folder.clock.unlink(missing_ok=True)
    return figures


def recalculate(folder: RunFolder) -> dict[str, Any]:
    """Compute the figures of a finished run anew, without the model.

    Raises:
        DataError: The folder holds no finished run.
    """
    seconds = read_json(folder.metrics).get("seconds", 0.0)
    figures = {**figures_of(read_predictions(folder.predictions), folder.settings()), "seconds": seconds}
    write_json(folder.metrics, figures)
    return figures


class _Means:
    """Means of all metrics so far."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, predictions: Sequence[Prediction]) -> None:
        for name, every in values(predictions, self._settings).items():
            there = [value for value in every if not math.isnan(value)]
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + sum(there), count + len(there))

    def now(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self._sums.items() if count}


def _evaluated(
    chunk: Sequence[Example],
    settings: RunSettings,
    finder: PassageFinder | None,
    pipeline: RagPipeline | None,
    given: dict[str, list[int]] | None,
) -> Iterator[list[Prediction]]:
    """Retrieve for questions and answer them; yield predictions as they are known."""
    questions = [example.question for example in chunk]
    hits = None
    ranked: list[tuple[RankedPassage, ...]] = [()] * len(chunk)
    if finder is not None:
        hits = finder.retrieve(questions, settings.found)
        ranked = [
            _ranked(example, doc, settings) for example, doc in zip(chunk, finder.docs(hits), strict=True)
        ]
        if given is not None:
            hits = finder.index.given([given[example.id] for example in chunk], settings.n_docs)
    if pipeline is None:
        yield [_prediction(example, None, own) for example, own in zip(chunk, ranked, strict=True)]
        return
    options: dict[str, Any] = {} if settings.decoding is None else {"decoding": settings.decoding}
    batch: list[Prediction] = []
    for place, answer in pipeline.stream(
        questions,
        n_docs=settings.n_docs,
        num_beams=settings.num_beams,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        extractive=settings.extractive,
        hits=hits,
        **options,
    ):
        batch.append(_prediction(chunk[place], answer, ranked[place]))
        if len(batch) == settings.batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _gold_rows(examples: Sequence[Example], finder: PassageFinder) -> dict[str, list[int]]:
    """The rows of each question's gold passages, by the question's id."""
    base = finder.index.base
    rows = base.rows_of({name for example in examples for name in example.gold_passages})
    return {example.id: [row for name in example.gold_passages for row in rows[name]] for example in examples}


def _ranked(example: Example, doc: dict[str, Any], settings: RunSettings) -> tuple[RankedPassage, ...]:
    def right(text: str) -> bool:
        return bool(example.answers) and has_answer(text, example.answers, patterns=settings.patterns)

    return tuple(
        RankedPassage(name, document, right(text))
        for name, document, text in zip(doc["id"], doc["document_id"], doc["text"], strict=True)
        if name  # of passages that are not there everything is empty
    )


def _prediction(example: Example, answer: Answer | None, ranked: tuple[RankedPassage, ...]) -> Prediction:
    read = () if answer is None else answer.passages
    return Prediction(
        id=example.id,
        question=example.question,
        golds=example.answers,
        gold_passages=example.gold_passages,
        answer=None if answer is None else answer.answer,
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
            for passage in read
            if passage.id  # closed book has an empty one
        ),
        retrieved=ranked,
    )
