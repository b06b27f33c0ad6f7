"""The page of results, made from the folders of runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from experiments.results.configurations import CONFIGURATIONS, Configuration

from ragweave.evaluation.compare import compare
from ragweave.evaluation.folder import RunFolder, read_json

TITLES = {
    "factbook": "The World Factbook",
    "xquad": "XQuAD (English), development articles",
}

_HEAD = """# Results

Written by `python -m experiments.results.run`. Each row is the embedded model with one thing changed. Numbers in
brackets are 95 % bootstrap intervals over questions; a star marks a difference from the first row with p < 0.05, two
stars p < 0.01 (paired permutation test). Recall and MRR are of the gold document, whatever K is. Rows that were not
run are left out; [performance.md](performance.md) has the speed.
"""

_ABOUT = {
    "factbook": "questions about countries that the adapter was not trained on, made by "
    "`experiments/embedded/factbook_questions.py`; all documents of the Factbook are searched.",
    "xquad": "questions that people wrote about Wikipedia articles, none of which the adapter was trained on; all "
    "passages of the data are searched.",
}

_COLUMNS = "| | exact match | F1 | recall@1 | recall@5 | MRR |"


def page(data: Mapping[str, RunFolder]) -> str:
    """Write the page.

    Args:
        data: By the name of a data set, the folder whose folders are its runs.
    """
    parts = [_HEAD]
    for name, folder in data.items():
        rows = list(_rows(folder))
        if rows:
            questions = read_json(folder.root / "base" / "metrics.json")["questions"]
            parts.append(f"## {TITLES[name]}\n\n{questions} {_ABOUT[name]}\n")
            parts.append("\n".join([_COLUMNS, "|-|-|-|-|-|-|", *rows]) + "\n")
    return "\n".join(parts)


def _rows(folder: RunFolder) -> Iterator[str]:
    group = ""
    for configuration in CONFIGURATIONS:
        run = RunFolder(folder.root / configuration.name)
        if not run.metrics.exists():
            continue
        if configuration.group != group:
            group = configuration.group
            yield f"| **{group}** | | | | | |"
        yield _row(configuration, run, RunFolder(folder.root / "base"))


def _row(configuration: Configuration, run: RunFolder, base: RunFolder) -> str:
    figures = read_json(run.metrics)
    stars = _stars(base, run)
    cells = [_cell(figures, name, stars) for name in ("exact_match", "f1", "recall@1", "recall@5", "mrr")]
    return f"| {configuration.label} | {' | '.join(cells)} |"


def _stars(base: RunFolder, run: RunFolder) -> dict[str, str]:
    if run.root == base.root:
        return {}
    others = compare([base.root, run.root]).others
    return {
        name: "**" if own.p_value < 0.01 else "*" if own.p_value < 0.05 else ""
        for name, (own,) in others.items()
        if own is not None
    }


def _cell(figures: dict[str, Any], name: str, stars: dict[str, str]) -> str:
    if name not in figures:
        return ""
    low, high = figures["intervals"][name]
    # Stars would be read as emphasis.
    return f"{figures[name]:.3f}{stars.get(name, '').replace('*', chr(92) + '*')} [{low:.2f}, {high:.2f}]"
