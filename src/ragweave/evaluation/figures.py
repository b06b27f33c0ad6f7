"""From predictions to figures: a value of every metric for every question, and their means with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ragweave.evaluation.folder import RunSettings
from ragweave.evaluation.metrics import (
    auroc,
    bleu_1,
    bootstrap_interval,
    brier_score,
    distinct_ngrams,
    exact_match,
    expected_calibration_error,
    f1,
    gold_mass,
    kilt_score,
    label_match,
    mrr,
    ndcg_at_k,
    q_bleu_1,
    r_precision,
    recall_at_k,
    regex_match,
    rouge_l,
    rouge_l_ms_marco,
)
from ragweave.evaluation.predictions import Prediction

Values = dict[str, list[float]]
"""By the name of a metric, its value for every question; NaN where it says nothing about one."""

ANSWER_METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "exact_match": exact_match,
    "f1": f1,
    "regex_match": regex_match,
    "rouge_l": rouge_l,
    "rouge_l_ms_marco": rouge_l_ms_marco,
    "q_bleu_1": q_bleu_1,
    "accuracy": lambda answer, golds: max(label_match(answer, gold) for gold in golds),
}
"""Metrics of an answer and its golds, by the names that are asked for."""

WHOLE_METRICS: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], float]] = {
    "bleu_1": bleu_1,
    "distinct_3": lambda answers, golds: distinct_ngrams(answers, 3),
}
"""Metrics of all answers together."""

CORRECT = ("exact_match", "regex_match", "accuracy")
"""Those that say whether an answer is right."""

_NDCG_DEPTH = 10


def values(predictions: Sequence[Prediction], settings: RunSettings) -> Values:
    """Compute every metric for every question."""
    rows = [_of_one(prediction, settings) for prediction in predictions]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name, math.nan) for row in rows] for name in names}


def figures_of(predictions: Sequence[Prediction], settings: RunSettings) -> dict[str, Any]:
    """The means of all metrics, each with a bootstrap interval of 95 %.

    Returns:
        Means by name; ``"questions"``; ``"intervals"``, and ``"counted"``: how many questions each metric says
        something about, where not about all.
    """
    own = values(predictions, settings)
    figures: dict[str, Any] = {"questions": len(predictions)}
    intervals: dict[str, list[float]] = {}
    counted: dict[str, int] = {}
    for name, every in own.items():
        there = [value for value in every if not math.isnan(value)]
        figures[name] = sum(there) / len(there)
        interval = bootstrap_interval(there)
        intervals[name] = [interval.low, interval.high]
        if len(there) < len(every):
            counted[name] = len(there)
    answered = [own for own in predictions if own.answer is not None and own.golds]
    for name in (name for name in settings.metrics if name in WHOLE_METRICS and answered):
        answers = [prediction.answer or "" for prediction in answered]
        figures[name] = WHOLE_METRICS[name](answers, [prediction.golds for prediction in answered])
    return {**figures, **_calibration(predictions, own), "intervals": intervals, "counted": counted}


def matched(prediction: Prediction) -> list[str]:
    """The ids of what was found as gold ids name them: those of passages, or of their documents."""
    gold = set(prediction.gold_passages)
    return [
        passage.document_id if passage.id not in gold and passage.document_id in gold else passage.id
        for passage in prediction.retrieved
    ]


def gold_rank(prediction: Prediction) -> int | None:
    """The rank of the first gold passage, from 1 on; ``None`` where it was not found or nobody knows it."""
    gold = set(prediction.gold_passages)
    return next((rank for rank, found in enumerate(matched(prediction), start=1) if found in gold), None)


def confidence(prediction: Prediction) -> float:
    """p(y|x), how sure the model is of its answer."""
    return math.nan if prediction.score is None else math.exp(min(prediction.score, 0.0))


def depths(settings: RunSettings) -> list[int]:
    """The ranks at which recall is reported, rising: 1, 5, K and all that are found."""
    return sorted({1, 5, settings.n_docs, settings.found})


def _of_one(prediction: Prediction, settings: RunSettings) -> dict[str, float]:
    own: dict[str, float] = {}
    if prediction.answer is not None and prediction.golds:
        for name in settings.metrics:
            if name in WHOLE_METRICS:
                continue
            own[name] = ANSWER_METRICS[name](prediction.answer, prediction.golds)
    ranked, gold = matched(prediction), set(prediction.gold_passages)
    for depth in depths(settings) if ranked else ():
        if gold:
            own[f"recall@{depth}"] = recall_at_k(ranked, gold, depth)
        if prediction.golds:
            own[f"answer_recall@{depth}"] = float(
                any(passage.has_answer for passage in prediction.retrieved[:depth])
            )
    if ranked and gold:
        own["mrr"] = mrr(ranked, gold)
        own["r_precision"] = r_precision(ranked, gold)
        own[f"ndcg@{_NDCG_DEPTH}"] = ndcg_at_k(ranked, gold, _NDCG_DEPTH)
        for name in ("exact_match", "f1"):
            if name in own:
                own[f"kilt_{name}"] = kilt_score(own[name], ranked, [gold])
    if prediction.passages and gold:
        ids = [passage.id if passage.id in gold else passage.document_id for passage in prediction.passages]
        own["gold_mass"] = gold_mass([passage.posterior for passage in prediction.passages], ids, gold)
    return own


def correct(own: Values) -> list[float]:
    """Whether each answer is right, by the first metric that says so; empty where none does."""
    return next((own[name] for name in CORRECT if name in own), [])


def _calibration(predictions: Sequence[Prediction], own: Values) -> dict[str, float]:
    """How far the model's p(y|x) is the probability that its answer is right."""
    right = correct(own)
    if not right:
        return {}
    sure = [confidence(prediction) for prediction in predictions]
    figures = {"ece": expected_calibration_error(sure, right), "brier": brier_score(sure, right)}
    if len(set(right)) > 1:
        figures["auroc"] = auroc(sure, right)
    return figures
