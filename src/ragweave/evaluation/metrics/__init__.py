"""Metrics of answers and retrieval with their published definitions, which docs/metrics.md lists.

sacrebleu, rouge-score and scipy come with the extra ``eval`` and are imported by the metrics that need them.
"""

from __future__ import annotations

from ragweave.evaluation.metrics.calibration import (
    ReliabilityBin,
    area_under_risk_coverage,
    auroc,
    best_threshold,
    brier_score,
    expected_calibration_error,
    gold_mass,
    reliability_curve,
    risk_coverage_curve,
)
from ragweave.evaluation.metrics.generated_text import (
    FEVER_2_WAY,
    FEVER_3_WAY,
    QBleuWeights,
    accuracy,
    bleu_1,
    distinct_ngrams,
    label_match,
    q_bleu_1,
    rouge_l,
    rouge_l_ms_marco,
    sentence_bleu_1,
)
from ragweave.evaluation.metrics.ranking import (
    answer_recall_at_k,
    hit_at_k,
    kilt_r_precision,
    kilt_recall_at_k,
    kilt_score,
    kilt_success_rate_at_k,
    mrr,
    ndcg_at_k,
    r_precision,
    recall_at_k,
)
from ragweave.evaluation.metrics.resampling import Interval, PairedTest, bootstrap_interval, paired_test
from ragweave.matching import exact_match, f1, has_answer, normalize_answer, regex_match

__all__ = [
    "FEVER_2_WAY",
    "FEVER_3_WAY",
    "Interval",
    "PairedTest",
    "QBleuWeights",
    "ReliabilityBin",
    "accuracy",
    "answer_recall_at_k",
    "area_under_risk_coverage",
    "auroc",
    "best_threshold",
    "bleu_1",
    "bootstrap_interval",
    "brier_score",
    "distinct_ngrams",
    "exact_match",
    "expected_calibration_error",
    "f1",
    "gold_mass",
    "has_answer",
    "hit_at_k",
    "kilt_r_precision",
    "kilt_recall_at_k",
    "kilt_score",
    "kilt_success_rate_at_k",
    "label_match",
    "mrr",
    "ndcg_at_k",
    "normalize_answer",
    "paired_test",
    "q_bleu_1",
    "r_precision",
    "recall_at_k",
    "regex_match",
    "reliability_curve",
    "risk_coverage_curve",
    "rouge_l",
    "rouge_l_ms_marco",
    "sentence_bleu_1",
]
