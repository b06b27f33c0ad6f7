"""``ragweave warm``."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from ragweave.cli import options
from ragweave.cli.console import count_of, note, print_json, print_text, progress_bar
from ragweave.errors import ConfigurationError


def warm(
    kb: options.KnowledgeBaseArgument,
    top: Annotated[
        int | None, typer.Option(min=1, help="Store this many passages, those that searches find most often.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Store all passages.")] = False,
    budget: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Maximum disk space, such as 4GiB (default: no limit)."),
    ] = None,
    dtype: Annotated[
        Literal["bfloat16", "float32"] | None,
        typer.Option(help="Data type of the stored numbers (default: the generator's, which is exact)."),
    ] = None,
    model: options.RagModel = "embedded",
    generator_dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="Data type of the generator, like --dtype of the commands that answer."),
    ] = "auto",
    device: options.Device = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the space is used.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Encode passages before questions arrive, and store the generator's keys and values.

    Later questions of 'ask', 'chat', 'serve' and 'eval' with the same model read the stored keys and values instead
    of the passages. They are stored beside the knowledge base's segments. 'delete' and 'compact' drop those of
    deleted passages, and each run drops those of other models. An interrupted run continues where it stopped.

    Examples:
      ragweave warm kb --top 200
      ragweave warm kb --all --budget 4GiB --yes
    """
    from ragweave.modeling.passage_cache import parse_size
    from ragweave.pipeline.warming import Warmer

    if (top is None) == (not every):
        raise ConfigurationError("Choose how many passages to store: --top N or --all.")
    limit = None if budget is None else parse_size(budget)
    pipeline = options.load_pipeline(
        model, knowledge_base=kb, dtype=generator_dtype, device=device, passage_cache=0
    )
    warmer = Warmer(pipeline, dtype)
    plan = warmer.plan(top=top, budget=limit)
    left_out = [(plan.over_budget, "exceed the budget"), (plan.too_long, "may be cut by a question")]
    count = len(plan.passages)
    note(
        f"{count_of(count, 'passage')} to read, at most {plan.bytes / 2**20:,.1f} MiB in {warmer.store.folder}; "
        + f"{plan.stored} stored already."
        + "".join(
            f" {count_of(number, 'passage')} left out: they {reason}."
            for number, reason in left_out
            if number
        )
    )
    if count and not yes and sys.stdin.isatty():
        typer.confirm("Continue?", abort=True, err=True)
    with progress_bar("Reading passages", total=count) as advance:
        dropped = warmer.run(plan, advance)
    if as_json:
        print_json({"stored": count, "stored_before": plan.stored, "dropped": dropped, "bytes": plan.bytes})
    else:
        print_text(
            f"{kb}: {count_of(count, 'passage')} stored, {plan.stored} stored before, {dropped} dropped."
        )
