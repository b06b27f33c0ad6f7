"""The plots of a report, as SVG that stands in the page itself."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragweave.errors import require_extra
from ragweave.evaluation.metrics import bootstrap_interval, reliability_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOUR = "#3b6ea8"
_FAINT = "#9aa7b5"


@dataclass(frozen=True, slots=True)
class Point:
    """A mean with its interval.

    Attributes:
        label: What it is the mean of.
        mean: The mean.
        low: Lower end of the interval.
        high: Upper end.
        count: Of how many questions.
    """

    label: str
    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, label: str, values: Sequence[float]) -> Point:
        """The mean of values, with a bootstrap interval of 95 %."""
        interval = bootstrap_interval(values)
        return cls(label, sum(values) / len(values), interval.low, interval.high, len(values))


def bars(points: Sequence[Point], *, xlabel: str, ylabel: str) -> str:
    """Means side by side, with intervals and the number of questions below each."""
    figure, axes = _figure()
    places = range(len(points))
    means = [point.mean for point in points]
    errors = [
        [max(point.mean - point.low, 0) for point in points],
        [max(point.high - point.mean, 0) for point in points],
    ]
    axes.bar(places, means, color=_COLOUR, width=0.6, yerr=errors, error_kw={"ecolor": _FAINT, "capsize": 3})
    axes.set_xticks(list(places), [f"{point.label}\nn={point.count}" for point in points])
    axes.set_xlim(-0.6, max(len(points), 3) - 0.4)  # few bars are not made wider
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1))
    return _svg(figure)


def line(points: Sequence[Point], *, xlabel: str, ylabel: str) -> str:
    """Means along an axis of numbers, with intervals."""
    figure, axes = _figure()
    places = [float(point.label) for point in points]
    axes.fill_between(
        places,
        [point.low for point in points],
        [point.high for point in points],
        color=_COLOUR,
        alpha=0.2,
        lw=0,
    )
    axes.plot(places, [point.mean for point in points], color=_COLOUR, marker="o")
    axes.set_xticks(places, [point.label for point in points])
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1))
    return _svg(figure)


def reliability(confidences: Sequence[float], right: Sequence[float]) -> str:
    """A reliability diagram: the share of right answers against p(y|x), the points as large as they are many."""
    figure, axes = _figure()
    bins = reliability_curve(confidences, right, bins=10)
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
    axes.set(xlabel="p(y|x)", ylabel="right", xlim=(0, 1), ylim=(0, 1))
    return _svg(figure)


def _figure() -> tuple[Any, Axes]:
    require_extra("matplotlib", "eval")
    from matplotlib.figure import Figure

    # Not pyplot, which keeps figures in a global list.
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_FAINT, alpha=0.3, lw=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any) -> str:
    """The figure as an element of a page, in the page's own colour and font."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "ragweave"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
