"""Draw exact match of every configuration with its interval, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experiments.results.configurations import CONFIGURATIONS

from ragweave.evaluation.run_folder import RunFolder, read_json

# As the two palettes of the documentation: the colour of text, and one of Okabe and Ito's for the values.
_COLOURS = {"light": ("#30343b", "#0072b2"), "dark": ("#e2e4e9", "#56b4e9")}


def draw(data: Mapping[str, RunFolder], titles: Mapping[str, str], folder: Path) -> list[Path]:
    """One panel for each data set, a row for each configuration; without runs, nothing is drawn.

    Args:
        data: By the name of a data set, the folder whose folders are its runs.
        titles: What data sets are called.
        folder: Where ``results-light.svg`` and ``results-dark.svg`` go.

    Returns:
        The two pictures, that for light pages first.
    """
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    runs = {
        name: {one.name: RunFolder(root.root / one.name) for one in CONFIGURATIONS}
        for name, root in data.items()
    }
    drawn = [one for one in CONFIGURATIONS if any(own[one.name].metrics.exists() for own in runs.values())]
    if not drawn:
        return []
    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for theme, (text, colour) in _COLOURS.items():
        style = {
            "svg.hashsalt": "ragweave",
            "text.color": text,
            "axes.labelcolor": text,
            "axes.edgecolor": text,
            "xtick.color": text,
            "ytick.color": text,
        }
        with mpl.rc_context(style):
            size = (4 + 2.6 * len(runs), 0.6 + 0.26 * len(drawn))
            figure, panels = plt.subplots(
                1, len(runs), figsize=size, sharey=True, squeeze=False, layout="constrained"
            )
            for panel, (name, own) in zip(panels[0], runs.items(), strict=True):
                for row, one in enumerate(drawn):
                    if own[one.name].metrics.exists():
                        figures = read_json(own[one.name].metrics)
                        low, high = figures["intervals"]["exact_match"]
                        value = figures["exact_match"]
                        panel.errorbar(
                            value, row, xerr=[[value - low], [high - value]], fmt="o", color=colour
                        )
                        if one is drawn[0]:
                            panel.axvline(value, color=text, linewidth=0.8, linestyle=":")
                panel.set_title(titles[name].partition(",")[0], fontsize="medium")
                panel.set_xlabel("exact match")
                panel.set_xlim(left=0)
                panel.grid(alpha=0.25, axis="x")
                panel.spines[["top", "right"]].set_visible(False)
            panels[0][0].set_yticks(range(len(drawn)), [one.label for one in drawn])
            panels[0][0].invert_yaxis()
            paths.append(folder / f"results-{theme}.svg")
            figure.savefig(paths[-1], transparent=True, metadata={"Date": None})
            plt.close(figure)
    return paths
