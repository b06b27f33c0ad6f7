"""Ask again with only the passage of the highest posterior, and without it: what did an answer rest on?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from experiments.results.configurations import Configuration
from experiments.results.vote import load

from ragweave import KnowledgeBase
from ragweave.evaluation.run_folder import Prediction, RunFolder, read_predictions
from ragweave.matching import normalize_answer
from ragweave.retrieval.retriever import RetrievalResult

CHUNK = 16


def ask_again(
    configuration: Configuration,
    base: KnowledgeBase,
    folder: RunFolder,
    progress: Callable[[int, int], None],
) -> None:
    """Answer the questions of a finished run twice more; another call resumes.

    Args:
        configuration: Of the run.
        base: What it searched.
        folder: The run.
        progress: Called with the number of all questions, and of those finished since the last call.
    """
    predictions, done = read_predictions(folder.predictions), read_answers(folder)
    remaining = [prediction for prediction in predictions if prediction.id not in done]
    progress(len(predictions), len(done))
    if not remaining:
        return
    settings, pipeline = configuration.settings, load(configuration, base)
    options: dict[str, Any] = {"extractive": settings.extractive, "min_confidence": 0.0}
    if settings.decoding is not None:
        options["decoding"] = settings.decoding
    with _path(folder).open("a", encoding="utf-8") as file:
        for start in range(0, len(remaining), CHUNK):
            chunk = remaining[start : start + CHUNK]
            questions = [prediction.question for prediction in chunk]
            retrieved = pipeline.text_retriever.retrieve(questions, settings.retrieval_depth)
            passages = retrieved.select(range(len(chunk)), settings.n_docs)
            columns = _first_column(chunk, passages)
            pairs = [
                pipeline(questions, retrieved=part, n_docs=part.rows.shape[1], **options)
                for part in (_take(passages, columns[:, :1]), _take(passages, columns[:, 1:]))
            ]
            for prediction, only, without in zip(chunk, *pairs, strict=True):
                file.write(f"{json.dumps([prediction.id, only.answer, without.answer])}\n")
            file.flush()
            progress(len(predictions), len(chunk))


def read_answers(folder: RunFolder) -> dict[str, tuple[str, str]]:
    """By the id of a question of a run, its answer from the first passage alone, and its answer without it."""
    path = _path(folder)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):  # an interrupted run cut the last line
        path.write_text("".join(lines[: len(whole)]), encoding="utf-8")
    return {name: (only, without) for name, only, without in whole}


def provenance_figures(folder: RunFolder) -> dict[str, float]:
    """How often the first passage is a gold one, suffices for the answer, and is needed for it.

    Only questions with a gold passage among those read count.
    """
    again = read_answers(folder)
    rows = []
    for prediction in read_predictions(folder.predictions) if again else ():
        golds = set(prediction.gold_passages)
        if prediction.id in again and golds & {passage.document_id for passage in prediction.passages}:
            first = max(prediction.passages, key=lambda passage: passage.posterior)
            answer, only, without = (
                normalize_answer(text or "") for text in (prediction.answer, *again[prediction.id])
            )
            rows.append((first.document_id in golds, only == answer, without != answer))
    if not rows:
        return {}
    return dict(zip(("first_is_gold", "sufficient", "necessary"), np.mean(rows, axis=0), strict=True))


def _path(folder: RunFolder) -> Path:
    return folder.root / "provenance.jsonl"


def _first_column(predictions: Sequence[Prediction], passages: RetrievalResult) -> Any:
    """The columns of the passages, (B, K), that of the highest posterior first."""
    columns = np.tile(np.arange(passages.rows.shape[1]), (len(predictions), 1))
    for row, prediction, doc in zip(columns, predictions, passages.docs, strict=True):
        first = max(prediction.passages, key=lambda passage: passage.posterior).id
        position = doc["id"].index(first)
        row[: position + 1] = np.roll(row[: position + 1], 1)
    return columns


def _take(passages: RetrievalResult, columns: Any) -> RetrievalResult:
    def taken(values: Any) -> Any:
        return None if values is None else np.take_along_axis(values, columns, 1)

    vectors = np.take_along_axis(passages.passage_vectors, columns[..., None], 1)
    names: Mapping[str, Any] = {
        name: taken(getattr(passages, name)) for name in ("rows", "scores", "weights", "offsets")
    }
    return replace(passages, passage_vectors=vectors, **names)
