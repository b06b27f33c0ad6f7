"""The report of a run: a self-contained page with metrics, plots and sample answers."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ragweave.errors import require_extra
from ragweave.evaluation.metric_values import confidence, correctness, gold_rank, metric_values
from ragweave.evaluation.metrics import bootstrap_interval, reliability_curve, risk_coverage_curve
from ragweave.evaluation.run_folder import Prediction, RunFolder, RunSettings, read_json, read_predictions
from ragweave.knowledge.store import replace_text

_N_SAMPLES = 12
_MAIN = ("exact_match", "f1", "recall@5", "answer_recall@5", "answer_rate")
_LENGTHS = {"1-5": (1, 5), "6-8": (6, 8), "9-11": (9, 11), "12-15": (12, 15), "16+": (16, 10**6)}
_RANKS = {"1": (1, 1), "2": (2, 2), "3-5": (3, 5), "6-10": (6, 10), "11+": (11, 10**6)}
_EXPLANATIONS = {
    "exact_match": "the normalised answer equals a gold answer",
    "f1": "F1 of the words shared with the best gold answer",
    "recall": "share of the gold passages in the top k",
    "answer_recall": "one of the top k passages contains a gold answer",
    "ndcg": "gold passages in the top k, discounted by rank",
    "kilt_exact_match": "exact match if R-precision is 1, else 0",
    "kilt_f1": "F1 if R-precision is 1, else 0",
    "mrr": "reciprocal rank of the first gold passage",
    "r_precision": "share of gold passages in the top R, for R gold passages",
    "gold_mass": "total posterior of the gold passages",
    "ece": "expected calibration error of the confidence, 15 bins",
    "brier": "mean squared error of the confidence",
    "auroc": "probability that a right answer has a higher confidence than a wrong one",
    "aurc": "mean share of wrong answers over all shares of questions answered",
    "answer_rate": "share of the questions that were answered",
    "answered_exact_match": "exact match of the answers that were given",
    "answered_f1": "F1 of the answers that were given",
    "refused_unanswerable": "share of the unanswerable questions that were not answered",
    "refused_right": "share of the right answers that were withheld",
    "squad2_exact_match": "exact match, where no answer is right for an unanswerable question",
    "squad2_f1": "F1, where no answer is right for an unanswerable question",
    "squad2_best_exact_match": "the same with the best threshold",
    "squad2_best_f1": "the same with the best threshold",
    "seconds": "duration of the run",
    "passage_cache_hits": "share of the passages that had been read before",
}
_COLOUR = "#3b6ea8"
_FAINT = "#9aa7b5"


def write_report(folder: RunFolder) -> Path:
    """Write the page of a finished run, including runs with other K in subfolders, and return its path.

    Raises `DataError` if a run is not finished, and `MissingExtraError` if the extra ``eval`` is not installed.
    """
    require_extra("jinja2", "eval")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    settings, metrics = folder.settings(), read_json(folder.metrics)
    predictions = read_predictions(folder.predictions)
    correct = correctness(predictions, metric_values(predictions, settings))
    environment = Environment(
        loader=PackageLoader("ragweave.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        name=folder.root.resolve().name,
        summary=metrics,
        metrics=_metric_rows(metrics),
        plots=_plots(folder, settings, predictions, correct),
        samples=_samples(predictions, correct),
        description=json.dumps(read_json(folder.description), indent=2, ensure_ascii=False),
    )
    replace_text(folder.report, page)
    return folder.report


def _metric_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "value": value,
            "interval": metrics["intervals"].get(name),
            "count": metrics["counted"].get(name, metrics["questions"]),
            "is_main": name in _MAIN,
            "about": _EXPLANATIONS.get(name.partition("@")[0], ""),
        }
        for name, value in metrics.items()
        if isinstance(value, (int, float))
    ]


def _plots(
    folder: RunFolder, settings: RunSettings, predictions: Sequence[Prediction], correct: Sequence[float]
) -> list[tuple[str, str]]:
    """The titles and the SVG of the plots that the run has data for."""
    if not correct:
        return []
    lengths = [len(prediction.question.split()) for prediction in predictions]
    confidences = [confidence(prediction) for prediction in predictions]
    plots = [
        ("Calibration", _reliability_plot(confidences, correct)),
        ("Wrong answers by share of questions answered", _risk_coverage_plot(confidences, correct)),
        (
            "Right answers by length of the question",
            _bar_plot(_grouped(lengths, correct, _LENGTHS), xlabel="words in the question"),
        ),
    ]
    if any(prediction.gold_passages for prediction in predictions) and settings.mode == "e2e":
        pairs = [pair for pair in zip(predictions, correct, strict=True) if pair[0].gold_passages]
        ranks = [gold_rank(prediction) or 0 for prediction, _ in pairs]
        groups = _grouped(ranks, [value for _, value in pairs], {**_RANKS, "not found": (0, 0)})
        plot = _bar_plot(groups, xlabel="rank of the first gold passage")
        plots.append(("Right answers by rank of the gold passage", plot))
    if curve := [RunFolder(path.parent) for path in folder.root.glob("k*/metrics.json")]:
        by_k = {}
        for run in (*curve, folder):
            run_settings = run.settings()
            predicted = read_predictions(run.predictions)
            by_k[run_settings.n_docs] = correctness(predicted, metric_values(predicted, run_settings))
        plots.append(
            ("Right answers by number of passages", _line_plot(dict(sorted(by_k.items())), xlabel="K"))
        )
    return plots


def _grouped(
    keys: Sequence[int], values: Sequence[float], groups: dict[str, tuple[int, int]]
) -> dict[str, list[float]]:
    """The values in each group of keys, without empty groups."""
    grouped = {
        name: [value for key, value in zip(keys, values, strict=True) if low <= key <= high]
        for name, (low, high) in groups.items()
    }
    return {name: group for name, group in grouped.items() if group}


def _bar_plot(groups: dict[str, list[float]], *, xlabel: str) -> str:
    """Means side by side, with intervals and the number of questions."""
    figure, axes = _new_figure()
    means, lows, highs = _means_and_intervals(groups.values())
    errors = [
        [max(mean - low, 0) for mean, low in zip(means, lows, strict=True)],
        [max(high - mean, 0) for mean, high in zip(means, highs, strict=True)],
    ]
    positions = range(len(groups))
    axes.bar(
        positions, means, color=_COLOUR, width=0.6, yerr=errors, error_kw={"ecolor": _FAINT, "capsize": 3}
    )
    axes.set_xticks(list(positions), [f"{name}\nn={len(group)}" for name, group in groups.items()])
    axes.set_xlim(-0.6, max(len(groups), 3) - 0.4)  # few bars keep their width
    axes.set(xlabel=xlabel, ylabel="right", ylim=(0, 1))
    return _to_svg(figure)


def _line_plot(groups: dict[int, list[float]], *, xlabel: str) -> str:
    """Means against a number, with intervals."""
    figure, axes = _new_figure()
    means, lows, highs = _means_and_intervals(groups.values())
    positions = list(groups)
    axes.fill_between(positions, lows, highs, color=_COLOUR, alpha=0.2, lw=0)
    axes.plot(positions, means, color=_COLOUR, marker="o")
    axes.set_xticks(positions, list(map(str, positions)))
    axes.set(xlabel=xlabel, ylabel="right", ylim=(0, 1))
    return _to_svg(figure)


def _reliability_plot(confidences: Sequence[float], correct: Sequence[float]) -> str:
    """The share of right answers against the confidence; the area of a point is the number of answers."""
    figure, axes = _new_figure()
    bins = reliability_curve(confidences, correct, bins=10)
    axes.plot([0, 1], [0, 1], color=_FAINT, lw=1, ls="--")
    axes.scatter(
        [point.confidence for point in bins],
        [point.accuracy for point in bins],
        s=[12 + 300 * point.count / len(confidences) for point in bins],
        color=_COLOUR,
        alpha=0.8,
        lw=0,
        clip_on=False,
        zorder=3,
    )
    axes.set(xlabel="confidence", ylabel="right", xlim=(0, 1), ylim=(0, 1))
    return _to_svg(figure)


def _risk_coverage_plot(confidences: Sequence[float], correct: Sequence[float]) -> str:
    """The share of wrong answers if only the most confident ones are given."""
    figure, axes = _new_figure()
    coverage, risk = zip(*risk_coverage_curve(confidences, correct), strict=True)
    axes.plot(coverage, risk, color=_COLOUR)
    axes.set(xlabel="share of questions answered", ylabel="wrong", xlim=(0, 1), ylim=(0, 1))
    return _to_svg(figure)


def _means_and_intervals(groups: Collection[Sequence[float]]) -> tuple[list[float], list[float], list[float]]:
    intervals = [bootstrap_interval(group) for group in groups]
    means = [sum(group) / len(group) for group in groups]
    return means, [interval.low for interval in intervals], [interval.high for interval in intervals]


def _new_figure() -> tuple[Any, Any]:
    require_extra("matplotlib", "eval")
    from matplotlib.figure import Figure

    # pyplot would keep all figures in a global list.
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_FAINT, alpha=0.3, lw=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _to_svg(figure: Any) -> str:
    """The figure as an element of a page, with the page's colour and font."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "ragweave"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _samples(predictions: Sequence[Prediction], correct: Sequence[float]) -> list[dict[str, Any]]:
    """Wrong and right answers to show, the same for every report."""
    if not correct:
        return []
    generator = random.Random(0)  # noqa: S311  # a sample to look at, not a secret
    groups = []
    for name, expected in (("Wrong answers", False), ("Right answers", True)):
        group = [row for row, value in zip(predictions, correct, strict=True) if bool(value) is expected]
        chosen = sorted(generator.sample(range(len(group)), min(_N_SAMPLES, len(group))))
        samples = [
            {
                "prediction": group[position],
                "confidence": confidence(group[position]),
                "rank": gold_rank(group[position]),
                "gold": set(group[position].gold_passages),
            }
            for position in chosen
        ]
        groups.append({"name": name, "count": len(group), "samples": samples})
    return groups
