"""The part of the page of results that is about training, made from the folders of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from experiments.training.configurations import CONFIGURATIONS
from experiments.training.retriever_losses import WAYS, record
from numpy.typing import NDArray

from ragweave.evaluation.figures import values
from ragweave.evaluation.folder import RunFolder
from ragweave.evaluation.metrics import bootstrap_interval, paired_test
from ragweave.evaluation.predictions import read_predictions

NAME = "training"
"""Of the part."""

METRICS = ("exact_match", "f1", "answer_recall@1", "answer_recall@5")
RETRIEVAL = ("answer_recall@1", "answer_recall@5", "answer_recall@20")

Scores = Mapping[str, NDArray[np.float64]]
"""By the metric's name, what every question got with every seed, (seeds, N)."""

_HEAD = """## Training

Written by `python -m experiments.training.run`: XQuAD (English) in passages of about 30 words (744 of them, so that
the one that answers is harder to find than above), K = 3. Every run begins with the embedded encoder and with the
embedded generator as it is after 1,200 questions about the World Factbook, without the adapter that ragweave ships.
It learns from 368 of the 735 training questions, others with every seed, in 46 steps of 8, through an adapter in the
last 12 of the generator's 30 layers; no setting was chosen by these figures. 130 questions about other articles are
asked. Figures are means over {seeds} seeds, of which exact match is given one by one too; brackets are 95 % bootstrap
intervals over questions, of their means over seeds, and stars mark differences from the first row of a table (paired
permutation test: one for p < 0.05, two for p < 0.01). Answer recall is the share of questions with a gold answer in
one of the first passages.
"""

_LOSSES = """The question encoder alone learns, from all 735 questions, four epochs of 46 steps, K = 5; the generator
keeps its weights. Stars are against no training. ADist was not run: it compares the attention to all passages of a
question, and what is remembered here from step to step is likelihoods, passage by passage.
"""

_TABLES = (
    ("Retriever frozen, BM25, trained jointly: RAG-Token", ("token-frozen", "token-bm25", "token-joint")),
    (
        "Retriever frozen, BM25, trained jointly: RAG-Sequence",
        ("sequence-frozen", "sequence-bm25", "sequence-joint"),
    ),
    ("The document encoder trained too, its index refreshed twice", ("token-joint", "token-end-to-end")),
    ("No passages at all", ("token-frozen", "closed-book")),
)

_LABELS = {
    "none": "before training",
    "marginal": "marginal likelihood alone",
    "emdr2": "and EMDR2",
    "pdist": "and PDist",
    "loop": "and LOOP",
}


def page(root: Path, seeds: Sequence[int]) -> str:
    """Write the part; tables of which nothing has been run are left out.

    Args:
        root: The folder of the experiment.
        seeds: The seeds that are put together.
    """
    labels = {own.name: own.label for own in CONFIGURATIONS}
    parts = [_HEAD.format(seeds=len(seeds))]
    for title, names in _TABLES:
        rows = {labels[name]: _evaluated(root, name, seeds) for name in names}
        parts += _table(title, "", rows, METRICS)
    losses = {_LABELS[way]: _noted(root, way, seeds) for way in WAYS}
    parts += _table("Losses of the retriever", _LOSSES, losses, RETRIEVAL)
    return "\n".join(parts)


def _table(title: str, about: str, rows: Mapping[str, Scores | None], metrics: Sequence[str]) -> list[str]:
    found = {label: scores for label, scores in rows.items() if scores is not None}
    if len(found) < 2:
        return []
    first = next(iter(found.values()))
    lines = [
        f"### {title}\n",
        *([about] if about else []),
        f"| | {' | '.join(metric.replace('_', ' ') for metric in metrics)} |",
        f"|-{'|-' * len(metrics)}|",
    ]
    for label, scores in found.items():
        cells = [_cell(scores[name], first[name], name) if name in scores else "" for name in metrics]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(own: NDArray[np.float64], first: NDArray[np.float64], name: str) -> str:
    means = own.mean(0)
    interval = bootstrap_interval(means)
    stars = ""
    if own is not first:
        p_value = paired_test(means, first.mean(0)).p_value
        stars = r"\*\*" if p_value < 0.01 else r"\*" if p_value < 0.05 else ""
    text = f"{means.mean():.3f}{stars} [{interval.low:.2f}, {interval.high:.2f}]"
    if name == METRICS[0]:
        text += "; " + ", ".join(f"{seed:.3f}" for seed in own.mean(1))
    return text


def _evaluated(root: Path, name: str, seeds: Sequence[int]) -> Scores | None:
    folders = [RunFolder(root / "runs" / f"{name}-{seed}" / "evaluation") for seed in seeds]
    if not all(folder.metrics.exists() for folder in folders):
        return None
    tables = [values(read_predictions(folder.predictions), folder.settings()) for folder in folders]
    return _stacked(tables)


def _noted(root: Path, way: str, seeds: Sequence[int]) -> Scores | None:
    files = [record(root, way, seed) for seed in seeds]
    if not all(file.exists() for file in files):
        return None
    return _stacked([json.loads(file.read_text(encoding="utf-8")) for file in files])


def _stacked(tables: Sequence[Mapping[str, Sequence[float]]]) -> Scores:
    return {name: np.array([table[name] for table in tables]) for name in tables[0]}
