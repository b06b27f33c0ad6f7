"""Compares runs on the same questions, and tests whether their differences are significant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragweave.errors import DataError
from ragweave.evaluation.metric_values import metric_values
from ragweave.evaluation.metrics import paired_test
from ragweave.evaluation.run_folder import RunFolder, flatten, read_json, read_predictions


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between a run and the first run in one metric."""

    mean: float  # over the questions that the metric covers in both runs
    difference: float  # this mean minus that of the first run
    low: float  # of the 95 % interval of the difference
    high: float
    p_value: float  # of a two-sided permutation test over questions


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs on the same questions."""

    names: tuple[str, ...]  # the names of the runs; the others are compared with the first
    questions: int
    settings: dict[str, list[str]]  # the settings that differ: by name, the value in each run
    means: dict[str, float]  # the means of the first run by metric
    intervals: dict[str, tuple[float, float]]  # the intervals of the first run by metric
    # By metric, the difference of each of the other runs; ``None`` if the run lacks the metric.
    others: dict[str, list[Difference | None]]


def compare(folders: Sequence[Path]) -> Comparison:
    """Compare two or more finished runs on the same questions; anything else raises a `DataError`."""
    if len(folders) < 2:
        raise DataError("Name at least two folders of runs to compare.")
    runs = [RunFolder(folder) for folder in folders]
    summary, *_ = [read_json(run.metrics) for run in runs]  # all of them must be finished
    predictions = [{row.id: row for row in read_predictions(run.predictions)} for run in runs]
    ids = list(predictions[0])
    for folder, rows in zip(folders, predictions, strict=True):
        if different := rows.keys() ^ predictions[0].keys():
            raise DataError(
                f"{folder} and {folders[0]} differ in {len(different)} questions: compare runs with the same data "
                "and --limit."
            )
    first, *tables = [
        metric_values([rows[name] for name in ids], run.settings())
        for rows, run in zip(predictions, runs, strict=True)
    ]
    return Comparison(
        names=tuple(folder.resolve().name for folder in folders),
        questions=len(ids),
        settings=_different_settings([flatten(read_json(run.description)) for run in runs]),
        means={name: summary[name] for name in first if name in summary},
        intervals={name: tuple(summary["intervals"][name]) for name in first if name in summary["intervals"]},
        others={
            name: [_difference(values, table.get(name)) for table in tables] for name, values in first.items()
        },
    )


def _difference(first: list[float], other: list[float] | None) -> Difference | None:
    pairs = [
        (one, two)
        for one, two in zip(first, other or [], strict=other is not None)
        if not (math.isnan(one) or math.isnan(two))
    ]
    if not pairs:
        return None
    values = [two for _, two in pairs]
    test = paired_test(values, [one for one, _ in pairs])
    return Difference(
        mean=sum(values) / len(values),
        difference=test.difference,
        low=test.interval.low,
        high=test.interval.high,
        p_value=test.p_value,
    )


def _different_settings(descriptions: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    names = dict.fromkeys(name for description in descriptions for name in description)
    rows = {name: [str(description.get(name, "")) for description in descriptions] for name in names}
    return {name: row for name, row in rows.items() if len(set(row)) > 1}
