"""``ragweave bench``: the benchmarks of the repository, against their peers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from ragweave.errors import ConfigurationError

HELP = """Run benchmarks against their peers, in turn; without a name, all but those of many minutes or gigabytes.

They are in the repository, not in the package: install ragweave from a clone (pip install -e .). What follows --
is handed to the benchmark.

Examples:

  ragweave bench

  ragweave bench token-decoding

  ragweave bench token-decoding --json -- --rounds 5 --size tiny
"""

# Tells a benchmark to print its figures as lines of JSON.
JSON_VARIABLE = "RAGWEAVE_BENCH_JSON"

# In the order in which they run.
BENCHMARKS = (
    "startup",
    "token-decoding",
    "sequence-decoding",
    "training-step",
    "memory",
    "embedding",
    "pipeline-throughput",
    "ask",
    "growth",
    "databases",
    "scale",
    "retrieval",
    "serving",
    "shared-index",
    "tensorflow-classes",
)
# Left out where none is named: they generate gigabytes, take minutes, or need TensorFlow.
_LONG = ("databases", "scale", "retrieval", "serving", "shared-index", "tensorflow-classes")


def bench(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help=f"One of {', '.join(BENCHMARKS)}.")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="Options of the benchmark.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a figure, and nothing else.")
    ] = False,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    if name is not None and name not in BENCHMARKS:
        raise ConfigurationError(f"There is no benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}.")
    folder = Path(__file__).parents[3] / "benchmarks"
    if not (folder / "harness.py").is_file():
        raise ConfigurationError(
            "The benchmarks are in ragweave's repository: clone it, and install it from there with "
            "pip install -e ."
        )
    environment = {**os.environ, JSON_VARIABLE: "1" if as_json else "0"}
    failed = []
    for one in [name] if name is not None else [own for own in BENCHMARKS if own not in _LONG]:
        script = folder / f"{one.replace('-', '_')}.py"
        command = [sys.executable, str(script), *(options or [])]
        if subprocess.run(command, env=environment, check=False).returncode:  # noqa: S603
            failed.append(one)
    if failed:
        raise typer.Exit(1)
