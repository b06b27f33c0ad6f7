"""``ragweave eval``: from a file of questions to a report."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ragweave.cli.models import Beams, Device, GeneratorDtype, MaxNewTokens, ModelFormulation, RagModel
from ragweave.cli.searching import Candidates, DenseWeight, FusedBy, Rerank, Retrieval

if TYPE_CHECKING:
    from ragweave.evaluation.compare import Difference
    from ragweave.evaluation.evaluate import RunProgress
    from ragweave.evaluation.run_folder import RunFolder

HELP = """Evaluate a model on questions, and write predictions, figures and a report.

The data is JSON lines (question, answers, and perhaps passage: the id of the passage or document that holds the
answer), or one of the other formats that --format and --recipe name. An evaluation that was interrupted goes on where
it stopped when it is run again.

Examples:

  ragweave eval --kb kb --data dev.jsonl --output runs/base

  ragweave eval --kb kb --data dev.jsonl --output runs/dense --retrieval dense

  ragweave eval --kb kb --data dev.jsonl --output runs/search --mode retrieval

  ragweave eval --data dev.jsonl --output runs/closed --mode closed-book

  ragweave eval --kb kb --data dev.jsonl --output runs/curve --curve 1,2,5,10

  ragweave eval --output runs/base --recalculate

  ragweave eval compare runs/base runs/dense
"""

COMPARE_HELP = """Put runs of the same questions side by side, with what differs in their settings.

Every run is compared with the first, question by question.

Examples:

  ragweave eval compare runs/dense runs/bm25 runs/hybrid

  ragweave eval compare runs/k5 runs/k10 --json
"""

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.callback(invoke_without_command=True)
def evaluate(
    context: typer.Context,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the run.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="FILE", help="Questions and what is right.")
    ] = None,
    kb: Annotated[str | None, typer.Option("--kb", help="Folder or URI of the knowledge base.")] = None,
    model: RagModel = "embedded",
    mode: Annotated[
        Literal["e2e", "retrieval", "closed-book"],
        typer.Option(help="Retrieve and answer, only retrieve, or answer without passages."),
    ] = "e2e",
    n_docs: Annotated[int, typer.Option(min=1, help="K, passages per answer.")] = 5,
    depth: Annotated[
        int, typer.Option(min=1, help="Passages that are retrieved to measure retrieval, K at least.")
    ] = 20,
    beams: Beams = 1,
    max_new_tokens: MaxNewTokens = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many questions, the first.")] = None,
    curve: Annotated[
        str | None, typer.Option(metavar="K,K,...", help="Evaluate with these K too, for a plot against K.")
    ] = None,
    retrieval: Retrieval = None,
    fusion: FusedBy = "weighted",
    dense_weight: DenseWeight = None,
    candidates: Candidates = 100,
    rerank: Rerank = None,
    gold: Annotated[
        bool, typer.Option("--gold-passages", help="Answer from the gold passages, not from those found.")
    ] = False,
    formulation: ModelFormulation = None,
    decoding: Annotated[
        Literal["thorough", "fast"] | None, typer.Option(help="How RAG-Sequence decodes.")
    ] = None,
    extractive: Annotated[
        bool | None,
        typer.Option("--extractive/--free", help="Answer only with words of a passage, or freely."),
    ] = None,
    adapter: Annotated[
        bool,
        typer.Option("--adapter/--no-adapter", help="The embedded model with its adapter, or as it was."),
    ] = True,
    gold_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Answers, one a line, to a file of questions.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="How the data of a known task is read and measured.")
    ] = None,
    data_format: Annotated[
        str, typer.Option("--format", help="The data's format, where its name does not say.")
    ] = "auto",
    columns: Annotated[
        str | None, typer.Option(metavar="NAME=COLUMN,...", help="The data's columns, by what they hold.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Metrics of answers (default: exact_match,f1).")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions answered together.")] = 8,
    dtype: GeneratorDtype = "auto",
    device: Device = None,
    recalculate: Annotated[
        bool, typer.Option("--recalculate", help="Compute figures and report anew from predictions.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew where the folder holds a run.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as one JSON object, and nothing else.")
    ] = False,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    if context.invoked_subcommand is not None:
        return
    from ragweave.cli.console import quiet_libraries
    from ragweave.errors import ConfigurationError
    from ragweave.evaluation.data import find_recipe, read_examples
    from ragweave.evaluation.evaluate import ModelSettings, evaluate
    from ragweave.evaluation.report import write_report
    from ragweave.evaluation.run_folder import RunFolder, RunSettings
    from ragweave.evaluation.runner import recalculate as recalculate_metrics
    from ragweave.types import SearchSettings

    if output is None:
        raise ConfigurationError("Name the folder of the run with --output.")
    if recalculate:
        recalculate_metrics(RunFolder(output))
        write_report(RunFolder(output))
        _show(RunFolder(output), as_json=as_json)
        return
    if data is None:
        raise ConfigurationError(
            "Name the questions with --data, or add --recalculate to a run that is there."
        )
    cooked = find_recipe(recipe)
    examples = read_examples(
        data, format=data_format, gold=gold_file, columns=_columns(columns), recipe=recipe, limit=limit
    )
    usual = cooked.metrics if cooked else RunSettings().metrics
    quiet_libraries()
    with _bars() as progress:
        folder = evaluate(
            examples,
            output,
            knowledge_base=kb,
            model=ModelSettings(
                model=model,
                formulation=formulation,
                search=SearchSettings(retrieval, fusion, dense_weight, candidates),
                rerank=rerank,
                adapter=adapter,
                dtype=dtype,
                device=device,
            ),
            settings=RunSettings(
                mode=mode,
                n_docs=1 if mode == "closed-book" else n_docs,
                depth=depth,
                num_beams=beams,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                extractive=extractive,
                decoding=decoding,
                gold=gold,
                patterns=cooked is not None and cooked.patterns,
                metrics=tuple(metrics.split(",")) if metrics else usual,
            ),
            curve=_numbers(curve),
            overwrite=overwrite,
            progress=progress,
        )
    _show(folder, as_json=as_json)


@app.command(help=COMPARE_HELP)
def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of runs; the first is the base.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the comparison as one JSON object, and nothing else.")
    ] = False,
) -> None:
    """Run the command; COMPARE_HELP is what ``--help`` shows."""
    from ragweave.evaluation.compare import compare as compared

    comparison = compared(folders)
    if as_json:
        sys.stdout.write(json.dumps(asdict(comparison), ensure_ascii=False) + "\n")
        return
    from rich.table import Table

    from ragweave.cli.console import stdout

    table = Table(box=None, pad_edge=False, title=f"{comparison.questions} questions", title_justify="left")
    table.add_column("metric")
    for name in comparison.names:
        table.add_column(name, justify="right")
    for name, row in comparison.settings.items():
        table.add_row(name, *row, style="dim")
    for name, mean in comparison.means.items():
        table.add_row(name, f"{mean:.3f}", *map(_difference, comparison.others[name]))
    stdout().print(table)
    stdout().print(
        "* differs from the first with p < 0.05, ** with p < 0.01 (paired permutation test)", style="dim"
    )


def _difference(other: Difference | None) -> str:
    if other is None:
        return ""
    stars = "**" if other.p_value < 0.01 else "*" if other.p_value < 0.05 else ""
    return f"{other.mean:.3f} ({other.difference:+.3f}{stars})"


@contextmanager
def _bars() -> Iterator[RunProgress]:
    """One progress bar for each run, with the means so far beside it."""
    from ragweave.cli.console import noted_bars

    with noted_bars() as advance:

        def progress(name: str, total: int, done: int, means: dict[str, float]) -> None:
            shown = [metric for metric in ("exact_match", "f1", "recall@5") if metric in means]
            advance(name, total, done, "  ".join(f"{metric} {means[metric]:.3f}" for metric in shown))

        yield progress


def _show(folder: RunFolder, *, as_json: bool) -> None:
    from ragweave.evaluation.run_folder import read_json

    figures = read_json(folder.metrics)
    if as_json:
        sys.stdout.write(json.dumps(figures, ensure_ascii=False) + "\n")
        return
    from rich.table import Table

    from ragweave.cli.console import stdout

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in figures.items():
        if isinstance(value, (int, float)):
            low, high = figures["intervals"].get(name, (None, None))
            interval = "" if low is None else f"{low:.3f} to {high:.3f}"
            table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value), interval)
    stdout().print(table)
    stdout().print(f"{folder.report}", markup=False, soft_wrap=True)


def _columns(given: str | None) -> dict[str, str] | None:
    from ragweave.errors import ConfigurationError

    if given is None:
        return None
    pairs = [part.partition("=") for part in given.split(",")]
    if not all(name and equals and column for name, equals, column in pairs):
        raise ConfigurationError(
            f"--columns {given}: write NAME=COLUMN,..., such as question=query,answers=gold."
        )
    return {name: column for name, _, column in pairs}


def _numbers(given: str | None) -> list[int]:
    from ragweave.errors import ConfigurationError

    parts = given.split(",") if given else []
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ConfigurationError(f"--curve {given}: write numbers of passages, such as 1,2,5,10.")
    return [int(part) for part in parts]
