"""The values of all metrics for every question of a run, and their means with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ragweave.evaluation import metrics
from ragweave.evaluation.run_folder import Prediction, RunSettings
from ragweave.matching import exact_match, f1, regex_match

MetricValues = dict[str, list[float]]
"""The value of each metric for every question, by the metric's name; NaN if it does not apply to a question."""

ANSWER_METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "exact_match": exact_match,
    "f1": f1,
    "regex_match": regex_match,
    "rouge_l": metrics.rouge_l,
    "rouge_l_ms_marco": metrics.rouge_l_ms_marco,
    "q_bleu_1": metrics.q_bleu_1,
    "accuracy": lambda answer, golds: max(metrics.label_match(answer, gold) for gold in golds),
}
"""Metrics of one answer and its golds, by their names in ``--metrics``."""

CORPUS_METRICS: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], float]] = {
    "bleu_1": metrics.bleu_1,
    "distinct_3": lambda answers, golds: metrics.distinct_ngrams(answers, 3),
}
"""Metrics of all answers together."""

_CORRECTNESS = ("exact_match", "regex_match", "accuracy")
_NDCG_DEPTH = 10


def metric_values(predictions: Sequence[Prediction], settings: RunSettings) -> MetricValues:
    """Compute all metrics for every question."""
    rows = [_question_metrics(prediction, settings) for prediction in predictions]
    if any(prediction.unanswerable or not prediction.answered for prediction in predictions):
        rows = [{**row, **_abstention(item, row)} for item, row in zip(predictions, rows, strict=True)]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name, math.nan) for row in rows] for name in names}


def summarize(predictions: Sequence[Prediction], settings: RunSettings) -> dict[str, Any]:
    """Compute the means of all metrics with 95 % bootstrap intervals.

    Returns:
        Means by name; ``"questions"``; ``"intervals"``; and ``"counted"``, the number of questions of each metric
        that does not apply to all questions.
    """
    values = metric_values(predictions, settings)
    summary: dict[str, Any] = {"questions": len(predictions)}
    intervals: dict[str, list[float]] = {}
    counted: dict[str, int] = {}
    for name, column in values.items():
        applicable = [value for value in column if not math.isnan(value)]
        summary[name] = sum(applicable) / len(applicable)
        interval = metrics.bootstrap_interval(applicable)
        intervals[name] = [interval.low, interval.high]
        if len(applicable) < len(column):
            counted[name] = len(applicable)
    answered = [item for item in predictions if item.answer is not None and item.golds]
    for name in (name for name in settings.metrics if name in CORPUS_METRICS and answered):
        answers = [prediction.answer or "" for prediction in answered]
        summary[name] = CORPUS_METRICS[name](answers, [prediction.golds for prediction in answered])
    return {
        **summary,
        **_calibration(predictions, values),
        **_best_thresholds(predictions, values),
        "intervals": intervals,
        "counted": counted,
    }


def gold_rank(prediction: Prediction) -> int | None:
    """The rank of the first gold passage, from 1; ``None`` if it was not retrieved or is unknown."""
    gold = set(prediction.gold_passages)
    return next((rank for rank, name in enumerate(_ranked_ids(prediction), start=1) if name in gold), None)


def confidence(prediction: Prediction) -> float:
    """The model's confidence in its answer: calibrated, or p(y|x) in predictions without one."""
    if prediction.confidence is not None:
        return prediction.confidence
    return math.nan if prediction.score is None else math.exp(min(prediction.score, 0.0))


def correctness(predictions: Sequence[Prediction], values: MetricValues) -> list[float]:
    """Whether each answer is correct, by the first metric that decides it; empty if there is none.

    An answer to an unanswerable question is wrong.
    """
    column = next((values[name] for name in _CORRECTNESS if name in values), [])
    return [
        0.0 if item.unanswerable else value for item, value in zip(predictions, column, strict=bool(column))
    ]


def _ranked_ids(prediction: Prediction) -> list[str]:
    """The ids of the retrieved passages, or of their documents if these are gold."""
    gold = set(prediction.gold_passages)
    return [
        passage.document_id if passage.id not in gold and passage.document_id in gold else passage.id
        for passage in prediction.retrieved
    ]


def _question_metrics(prediction: Prediction, settings: RunSettings) -> dict[str, float]:
    values: dict[str, float] = {}
    if prediction.answer is not None and prediction.golds:
        for name in settings.metrics:
            if name not in CORPUS_METRICS:
                values[name] = ANSWER_METRICS[name](prediction.answer, prediction.golds)
    ranked, gold = _ranked_ids(prediction), set(prediction.gold_passages)
    for depth in sorted({1, 5, settings.n_docs, settings.retrieval_depth}) if ranked else ():
        if gold:
            values[f"recall@{depth}"] = metrics.recall_at_k(ranked, gold, depth)
        if prediction.golds:
            hits = (passage.has_answer for passage in prediction.retrieved[:depth])
            values[f"answer_recall@{depth}"] = float(any(hits))
    if ranked and gold:
        values["mrr"] = metrics.mrr(ranked, gold)
        values["r_precision"] = metrics.r_precision(ranked, gold)
        values[f"ndcg@{_NDCG_DEPTH}"] = metrics.ndcg_at_k(ranked, gold, _NDCG_DEPTH)
        for name in ("exact_match", "f1"):
            if name in values:
                values[f"kilt_{name}"] = metrics.kilt_score(values[name], ranked, [gold])
    if prediction.passages and gold:
        ids = [passage.id if passage.id in gold else passage.document_id for passage in prediction.passages]
        values["gold_mass"] = metrics.gold_mass(
            [passage.posterior for passage in prediction.passages], ids, gold
        )
    return values


def _abstention(prediction: Prediction, values: dict[str, float]) -> dict[str, float]:
    """Metrics of abstention: no answer is right for an unanswerable question, as in SQuAD 2.0."""
    if prediction.answer is None or not (prediction.golds or prediction.unanswerable):
        return {}
    measured = {"answer_rate": float(prediction.answered)}
    if prediction.unanswerable:
        measured["refused_unanswerable"] = float(not prediction.answered)
    for name in ("exact_match", "f1"):
        if prediction.unanswerable or name in values:
            value = values.get(name, 0.0)
            if prediction.answered:
                measured[f"answered_{name}"] = value
            measured[f"squad2_{name}"] = value if prediction.answered else float(prediction.unanswerable)
            if name == "exact_match" and value:
                measured["refused_right"] = float(not prediction.answered)
    return measured


def _best_thresholds(predictions: Sequence[Prediction], values: MetricValues) -> dict[str, float]:
    """SQuAD 2.0's exact match and F1 with the best confidence threshold for each."""
    if not any(item.unanswerable for item in predictions):
        return {}
    best = {}
    for name in ("exact_match", "f1"):
        pairs = [
            (confidence(item), 0.0 if item.unanswerable else values[name][number], float(item.unanswerable))
            for number, item in enumerate(predictions)
            if name in values and (item.unanswerable or item.golds)
        ]
        if pairs:
            best[f"squad2_best_{name}"], best[f"squad2_{name}_threshold"] = metrics.best_threshold(
                *zip(*pairs, strict=True)
            )
    return best


def _calibration(predictions: Sequence[Prediction], values: MetricValues) -> dict[str, float]:
    """How well the confidence predicts whether the answer is correct."""
    correct = correctness(predictions, values)
    if not correct:
        return {}
    confidences = [confidence(prediction) for prediction in predictions]
    measured = {
        "ece": metrics.expected_calibration_error(confidences, correct),
        "brier": metrics.brier_score(confidences, correct),
    }
    if len(set(correct)) > 1:
        measured["auroc"] = metrics.auroc(confidences, correct)
        measured["aurc"] = metrics.area_under_risk_coverage(confidences, correct)
    return measured
