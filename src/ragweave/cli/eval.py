"""``ragweave eval`` and ``ragweave eval compare``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from ragweave.cli import options, takes_options
from ragweave.cli.console import count_of, job_bars, note, print_json, print_text, quiet_libraries, stdout
from ragweave.cli.pipelines import PipelineOptions
from ragweave.errors import ConfigurationError

if TYPE_CHECKING:
    from ragweave.evaluation.compare import Difference
    from ragweave.evaluation.evaluate import RunProgress
    from ragweave.evaluation.run_folder import RunFolder

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.callback(invoke_without_command=True)
@takes_options
def evaluate(
    context: typer.Context,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the run.")
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="FILE", help="Questions with gold answers.")] = None,
    kb: options.OptionalKnowledgeBase = None,
    given: PipelineOptions,
    mode: Annotated[
        Literal["e2e", "retrieval", "closed-book"],
        typer.Option(help="Retrieve and answer, only retrieve, or answer without passages."),
    ] = "e2e",
    n_docs: Annotated[int, typer.Option(min=1, help="K, passages per answer.")] = 5,
    depth: Annotated[
        int, typer.Option(min=1, help="Passages to retrieve for retrieval metrics; at least K.")
    ] = 20,
    limit: options.Limit = None,
    curve: Annotated[
        str | None, typer.Option(metavar="K,K,...", help="Also evaluate these K, for a plot against K.")
    ] = None,
    where: options.Where = None,
    gold: Annotated[
        bool, typer.Option("--gold-passages", help="Answer from the gold passages instead of retrieving.")
    ] = False,
    decoding: Annotated[
        Literal["thorough", "fast"] | None, typer.Option(help="Decoding of RAG-Sequence.")
    ] = None,
    extractive: options.Extractive = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Fit a calibration of the confidence on this run, and write it, such as to MODEL/confidence.json.",
        ),
    ] = None,
    adapter: Annotated[
        bool,
        typer.Option("--adapter/--no-adapter", help="The embedded model with or without its adapter."),
    ] = True,
    gold_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Answers, one per line, for a file of questions.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Known task, which sets the data format and the metrics.")
    ] = None,
    data_format: Annotated[
        str, typer.Option("--format", help="Data format, if the file name does not show it.")
    ] = "auto",
    columns: Annotated[
        str | None, typer.Option(metavar="NAME=COLUMN,...", help="Names of the columns of the data.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Answer metrics (default: exact_match,f1).")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions per batch.")] = 8,
    recalculate: Annotated[
        bool, typer.Option("--recalculate", help="Compute metrics and report again from the predictions.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing run at --output.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate a model on questions, and write predictions, metrics and a report.

    The data is JSON lines (question, answers, and optionally passage: the id of the passage or document that contains
    the answer), or another format: see --format and --recipe. Questions with "answers": [] or "unanswerable": true
    are right if they are not answered. Run the same command again to resume an interrupted evaluation.

    Examples:
      ragweave eval --kb kb --data dev.jsonl --output runs/base
      ragweave eval --kb kb --data dev.jsonl --output runs/dense --retrieval dense
      ragweave eval --kb kb --data dev.jsonl --output runs/search --mode retrieval
      ragweave eval --data dev.jsonl --output runs/closed --mode closed-book
      ragweave eval --kb kb --data dev.jsonl --output runs/curve --curve 1,2,5,10
      ragweave eval --output runs/base --recalculate
      ragweave eval --kb kb --data fit.jsonl --output runs/fit --calibrate confidence.json
      ragweave eval --kb kb --data dev.jsonl --output runs/dev --calibration confidence.json
      ragweave eval compare runs/base runs/dense
    """
    if context.invoked_subcommand is not None:
        return
    if output is None:
        raise ConfigurationError("Give the folder of the run with --output.")
    from ragweave.evaluation import evaluate as evaluation
    from ragweave.evaluation.data import find_recipe, read_examples
    from ragweave.evaluation.report import write_report
    from ragweave.evaluation.run_folder import RunFolder, RunSettings, read_json
    from ragweave.evaluation.runner import recalculate as recalculate_metrics

    if recalculate:
        folder = RunFolder(output)
        recalculate_metrics(folder)
        write_report(folder)
        _calibrate(folder, calibrate)
        _print_metrics(read_json(folder.metrics), folder.report, as_json=as_json)
        return
    if data is None:
        raise ConfigurationError("Give the questions with --data, or add --recalculate for an existing run.")
    task = find_recipe(recipe)
    examples = read_examples(
        data, format=data_format, gold=gold_file, columns=_columns(columns), recipe=recipe, limit=limit
    )
    default_metrics = task.metrics if task else RunSettings().metrics
    quiet_libraries()
    with _run_bars() as progress:
        folder = evaluation.evaluate(
            examples,
            output,
            knowledge_base=kb,
            model=evaluation.ModelSettings(
                model=given.model,
                formulation=given.formulation,
                search=given.search(where),
                rerank=given.rerank,
                adapter=adapter,
                dtype=given.dtype,
                device=given.device,
                calibration=None if given.calibration is None else str(given.calibration),
                answer_style=given.answer_style,
                server=given.server(),
            ),
            settings=RunSettings(
                mode=mode,
                n_docs=1 if mode == "closed-book" else n_docs,
                depth=depth,
                num_beams=given.beams,
                max_new_tokens=given.max_new_tokens,
                batch_size=batch_size,
                extractive=extractive,
                decoding=decoding,
                gold=gold,
                patterns=task is not None and task.patterns,
                metrics=tuple(metrics.split(",")) if metrics else default_metrics,
                min_confidence=given.min_confidence,
            ),
            curve=_numbers(curve),
            overwrite=overwrite,
            passage_cache=given.passage_cache,
            progress=progress,
        )
    _calibrate(folder, calibrate)
    _print_metrics(read_json(folder.metrics), folder.report, as_json=as_json)


@app.command()
def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of runs; the first is the baseline.")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Compare runs on the same questions, with the settings that differ.

    Each run is compared with the first one, question by question.

    Examples:
      ragweave eval compare runs/dense runs/bm25 runs/hybrid
      ragweave eval compare runs/k5 runs/k10 --json
    """
    from ragweave.evaluation import compare as comparing

    comparison = comparing.compare(folders)
    if as_json:
        print_json(asdict(comparison))
        return
    settings = Table(box=None, pad_edge=False)
    for name in ("setting", *comparison.names):
        settings.add_column(name, overflow="fold")
    for name, row in comparison.settings.items():
        settings.add_row(name, *row)
    metrics = Table(box=None, pad_edge=False)
    for name in ("metric", "run", "mean", "difference", "95 % interval", "p"):
        metrics.add_column(name, justify="left" if name in ("metric", "run") else "right")
    first, *others = comparison.names
    for name, mean in comparison.means.items():
        low, high = comparison.intervals.get(name, (None, None))
        interval = "" if low is None else f"{low:.3f} to {high:.3f}"
        metrics.add_row(name, first, f"{mean:.3f}", "", interval, "", style="bold")
        for run, other in zip(others, comparison.others[name], strict=True):
            metrics.add_row("", run, *_difference(other))
    console = stdout()
    console.print(count_of(comparison.questions, "question"), settings, "", metrics, sep="\n")
    console.print(
        f"The interval beside a difference from {first} is for the difference; p is from a paired permutation "
        "test.",
        style="dim",
    )


def _difference(other: Difference | None) -> tuple[str, ...]:
    if other is None:
        return ()
    interval = f"{other.low:+.3f} to {other.high:+.3f}"
    return f"{other.mean:.3f}", f"{other.difference:+.3f}", interval, f"{other.p_value:.3f}"


def _calibrate(folder: RunFolder, file: Path | None) -> None:
    """Fit a calibration on a run, write it, and report its threshold."""
    if file is None:
        return
    from ragweave.evaluation.runner import calibrate as fit

    model = fit(folder)
    model.save(file)
    note(f"{file}: fitted on {model.questions} answers; withholds those below {model.threshold:.2f}.")


@contextmanager
def _run_bars() -> Iterator[RunProgress]:
    """One progress bar for each run, with the means so far beside it."""
    with job_bars() as advance:

        def progress(name: str, total: int, done: int, means: dict[str, float]) -> None:
            metrics = [metric for metric in ("exact_match", "f1", "recall@5") if metric in means]
            advance(name, total, done, "  ".join(f"{metric} {means[metric]:.3f}" for metric in metrics))

        yield progress


def _print_metrics(metrics: dict[str, Any], report: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(metrics)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in metrics.items():
        if isinstance(value, (int, float)):
            low, high = metrics["intervals"].get(name, (None, None))
            interval = "" if low is None else f"{low:.3f} to {high:.3f}"
            table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value), interval)
    stdout().print(table)
    print_text(str(report))


def _columns(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name and equals and column for name, equals, column in pairs):
        raise ConfigurationError(
            f"--columns {text} is invalid. Write NAME=COLUMN,..., such as question=query,answers=gold."
        )
    return {name: column for name, _, column in pairs}


def _numbers(text: str | None) -> list[int]:
    parts = text.split(",") if text else []
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ConfigurationError(f"--curve {text} is invalid. Write numbers of passages, such as 1,2,5,10.")
    return [int(part) for part in parts]
