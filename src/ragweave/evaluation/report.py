"""The report of a run: one page that needs nothing else, with figures, plots, and answers to look at."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragweave.errors import require_extra
from ragweave.evaluation import plots
from ragweave.evaluation.figures import confidence, correct, gold_rank, values
from ragweave.evaluation.folder import RunFolder, RunSettings, read_json
from ragweave.evaluation.predictions import Prediction, read_predictions

_SAMPLED = 12
_LENGTHS = ((1, 5), (6, 8), (9, 11), (12, 15), (16, 10**6))
_EXPLAINED = {
    "exact_match": "answers equal to a gold answer in SQuAD's normal form",
    "f1": "words shared with the best gold answer",
    "recall": "gold passages among the first so many",
    "answer_recall": "whether one of the first so many passages has a gold answer, word for word",
    "ndcg": "gold passages among the first so many, weighed by rank",
    "kilt_exact_match": "exact match where R-precision is 1, else 0",
    "kilt_f1": "F1 where R-precision is 1, else 0",
    "mrr": "mean of 1 / rank of the first gold passage",
    "r_precision": "gold passages among the first R, where there are R of them",
    "gold_mass": "share of the posterior on gold passages",
    "ece": "expected calibration error of p(y|x), 15 bins",
    "brier": "mean squared error of p(y|x)",
    "auroc": "how often a right answer has the higher p(y|x) than a wrong one",
    "seconds": "time it took",
}


def write_report(folder: RunFolder) -> Path:
    """Write the page of a finished run, and of those with other K in folders below it.

    Args:
        folder: The run.

    Returns:
        The page.

    Raises:
        DataError: A run is not finished.
        MissingExtraError: The extra ``eval`` is not installed.
    """
    require_extra("jinja2", "eval")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    settings, figures = folder.settings(), read_json(folder.metrics)
    predictions = read_predictions(folder.predictions)
    own = values(predictions, settings)
    right = correct(own)
    environment = Environment(
        loader=PackageLoader("ragweave.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        name=folder.root.resolve().name,
        figures=_rows(figures),
        plots=_plots(folder, settings, predictions, right),
        samples=_samples(predictions, right),
        description=json.dumps(read_json(folder.description), indent=2, ensure_ascii=False),
    )
    temporary = folder.report.with_name(f".{folder.report.name}.new")
    temporary.write_text(page, encoding="utf-8")
    return temporary.replace(folder.report)


def _rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table of figures."""
    numbers = {name: value for name, value in figures.items() if isinstance(value, (int, float))}
    return [
        {
            "name": name,
            "value": value,
            "interval": figures["intervals"].get(name),
            "count": figures["counted"].get(name, figures["questions"]),
            "about": _EXPLAINED.get(name.partition("@")[0], ""),
        }
        for name, value in numbers.items()
    ]


def _plots(
    folder: RunFolder,
    settings: RunSettings,
    predictions: Sequence[Prediction],
    right: Sequence[float],
) -> list[tuple[str, str]]:
    """Titles and SVG of the plots that the run has data for."""
    found = []
    if right:
        found.append(
            ("Calibration", plots.reliability([confidence(prediction) for prediction in predictions], right))
        )
        found.append(("Right answers by length of the question", _by_length(predictions, right)))
        if any(prediction.gold_passages for prediction in predictions) and settings.mode == "e2e":
            found.append(("Right answers by rank of the gold passage", _by_rank(predictions, right)))
    curve = [RunFolder(path.parent) for path in sorted(folder.root.glob("k*/metrics.json"))]
    if right and curve:
        found.append(("Right answers by number of passages", _by_n_docs([*curve, folder])))
    return found


def _by_length(predictions: Sequence[Prediction], right: Sequence[float]) -> str:
    points = []
    for low, high in _LENGTHS:
        chosen = [
            value
            for prediction, value in zip(predictions, right, strict=True)
            if low <= len(prediction.question.split()) <= high
        ]
        if chosen:
            points.append(plots.Point.of(f"{low}+" if high == 10**6 else f"{low}-{high}", chosen))
    return plots.bars(points, xlabel="words in the question", ylabel="right")


def _by_rank(predictions: Sequence[Prediction], right: Sequence[float]) -> str:
    by_rank: dict[str, list[float]] = {name: [] for name in ("1", "2", "3-5", "6-10", "11+", "not found")}
    for prediction, value in zip(predictions, right, strict=True):
        if not prediction.gold_passages:
            continue
        rank = gold_rank(prediction)
        if rank is None:
            by_rank["not found"].append(value)
        else:
            bounds = {"1": 1, "2": 2, "3-5": 5, "6-10": 10}
            by_rank[next((name for name, last in bounds.items() if rank <= last), "11+")].append(value)
    points = [plots.Point.of(name, own) for name, own in by_rank.items() if own]
    return plots.bars(points, xlabel="rank of the first gold passage", ylabel="right")


def _by_n_docs(runs: Sequence[RunFolder]) -> str:
    points = {}
    for run in runs:
        settings = run.settings()
        own = correct(values(read_predictions(run.predictions), settings))
        points[settings.n_docs] = plots.Point.of(str(settings.n_docs), own)
    return plots.line([points[k] for k in sorted(points)], xlabel="K", ylabel="right")


def _samples(predictions: Sequence[Prediction], right: Sequence[float]) -> list[dict[str, Any]]:
    """Answers to look at, right and wrong ones, the same each time."""
    if not right:
        return []
    generator = random.Random(0)  # noqa: S311  # a sample to look at, no secret
    groups = []
    for name, wanted in (("Wrong answers", False), ("Right answers", True)):
        places = [place for place, value in enumerate(right) if bool(value) is wanted]
        chosen = sorted(generator.sample(places, min(_SAMPLED, len(places))))
        groups.append(
            {
                "name": name,
                "count": len(places),
                "predictions": [
                    {
                        "own": predictions[place],
                        "confidence": confidence(predictions[place]),
                        "rank": gold_rank(predictions[place]),
                        "gold": set(predictions[place].gold_passages),
                    }
                    for place in chosen
                ],
            }
        )
    return groups
