"""Runs side by side: the same questions, other settings, and whether a difference is more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragweave.errors import DataError
from ragweave.evaluation.figures import values
from ragweave.evaluation.folder import RunFolder, read_json
from ragweave.evaluation.metrics import paired_test
from ragweave.evaluation.predictions import read_predictions


@dataclass(frozen=True, slots=True)
class Difference:
    """How a run differs from the first in one metric.

    Attributes:
        mean: The run's own mean, over the questions that both say something about.
        difference: By how much it is above the first.
        low: Lower end of the interval of 95 % of the difference.
        high: Upper end.
        p_value: Of a two-sided permutation test over questions.
    """

    mean: float
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs of the same questions.

    Attributes:
        names: Their names, the first being what the others are compared with.
        questions: How many questions they share.
        settings: What is not the same in all of them: by its name, the value in each.
        means: By the metric's name, the first run's mean.
        intervals: By the metric's name, its interval.
        others: By the metric's name, what became of it in each of the other runs; ``None`` where it is not there.
    """

    names: tuple[str, ...]
    questions: int
    settings: dict[str, list[str]]
    means: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    others: dict[str, list[Difference | None]]


def compare(folders: Sequence[Path]) -> Comparison:
    """Put finished runs of the same questions side by side.

    Raises:
        DataError: There are fewer than two, or one is not finished, or they have other questions.
    """
    if len(folders) < 2:
        raise DataError("Name at least two folders of runs to compare.")
    runs = [RunFolder(folder) for folder in folders]
    figures = [read_json(run.metrics) for run in runs]
    predictions = [{own.id: own for own in read_predictions(run.predictions)} for run in runs]
    ids = list(predictions[0])
    for folder, own in zip(folders[1:], predictions[1:], strict=True):
        if own.keys() != predictions[0].keys():
            apart = len(own.keys() ^ predictions[0].keys())
            raise DataError(
                f"{folder} and {folders[0]} differ in {apart} questions: compare runs of the same data and --limit."
            )
    tables = [
        values([own[name] for name in ids], run.settings())
        for own, run in zip(predictions, runs, strict=True)
    ]
    first = tables[0]
    return Comparison(
        names=tuple(folder.resolve().name for folder in folders),
        questions=len(ids),
        settings=_unequal([_flat(read_json(run.description)) for run in runs]),
        means={name: figures[0][name] for name in first if name in figures[0]},
        intervals={
            name: tuple(figures[0]["intervals"][name]) for name in first if name in figures[0]["intervals"]
        },
        others={
            name: [_difference(every, table.get(name)) for table in tables[1:]]
            for name, every in first.items()
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
    own = [two for _, two in pairs]
    test = paired_test(own, [one for one, _ in pairs])
    return Difference(
        mean=sum(own) / len(own),
        difference=test.difference,
        low=test.interval.low,
        high=test.interval.high,
        p_value=test.p_value,
    )


def _flat(content: dict[str, object], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat


def _unequal(descriptions: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    names = dict.fromkeys(name for own in descriptions for name in own)
    rows = {name: [own.get(name, "") for own in descriptions] for name in names}
    return {name: row for name, row in rows.items() if len(set(row)) > 1}
