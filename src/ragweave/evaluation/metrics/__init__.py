"""Figures of merit for answers and retrieval, each equal to its published definition (docs/metrics.md).

Libraries are imported when a metric needs them: sacrebleu, rouge-score and regex come with the extra ``eval``.
"""

from __future__ import annotations

from ragweave.evaluation.metrics.answer_recall import answer_recall_at_k, has_answer
from ragweave.evaluation.metrics.answers import exact_match, f1, normalize_answer, regex_match
from ragweave.evaluation.metrics.calibration import (
    ReliabilityBin,
    auroc,
    brier_score,
    expected_calibration_error,
    reliability_curve,
)
from ragweave.evaluation.metrics.classification import FEVER_2_WAY, FEVER_3_WAY, accuracy, label_match
from ragweave.evaluation.metrics.generation import (
    bleu_1,
    distinct_ngrams,
    rouge_l,
    rouge_l_ms_marco,
    sentence_bleu_1,
)
from ragweave.evaluation.metrics.kilt import (
    kilt_r_precision,
    kilt_recall_at_k,
    kilt_score,
    kilt_success_rate_at_k,
)
from ragweave.evaluation.metrics.posterior import gold_mass
from ragweave.evaluation.metrics.q_bleu import QBleuWeights, q_bleu_1
from ragweave.evaluation.metrics.ranking import hit_at_k, mrr, ndcg_at_k, r_precision, recall_at_k
from ragweave.evaluation.metrics.resampling import Interval, PairedTest, bootstrap_interval, paired_test

__all__ = [
    "FEVER_2_WAY",
    "FEVER_3_WAY",
    "Interval",
    "PairedTest",
    "QBleuWeights",
    "ReliabilityBin",
    "accuracy",
    "answer_recall_at_k",
    "auroc",
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
    "rouge_l",
    "rouge_l_ms_marco",
    "sentence_bleu_1",
]
