"""``ragweave bench``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from ragweave.cli.console import note
from ragweave.cli.options import AsJson
from ragweave.errors import ConfigurationError

# Makes a benchmark print its results as lines of JSON.
JSON_VARIABLE = "RAGWEAVE_BENCH_JSON"

_BY_DEFAULT = (
    "startup",
    "token-decoding",
    "sequence-decoding",
    "training-step",
    "memory",
    "embedding",
    "pipeline-throughput",
    "ask",
    "growth",
)
# These run only by name: they need a knowledge base, TensorFlow or CTranslate2, write gigabytes, or take minutes.
_ON_REQUEST = (
    "databases",
    "engines",
    "llama-cpp",
    "passage-cache",
    "precision",
    "recall",
    "scale",
    "retrieval",
    "serving",
    "shared-index",
    "tensorflow-classes",
)
BENCHMARKS = (*_BY_DEFAULT, *_ON_REQUEST)


def bench(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help=f"One of {', '.join(BENCHMARKS)}.")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="Options for the benchmark.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare ragweave with other libraries.

    Without a name, run all benchmarks except those that take many minutes or gigabytes. The benchmarks are part of
    the repository, not of the package: install ragweave from a clone with pip install -e . first. Options after --
    go to the benchmark.

    Examples:
      ragweave bench
      ragweave bench token-decoding
      ragweave bench token-decoding --json -- --rounds 5 --size tiny
    """
    if name is not None and name not in BENCHMARKS:
        raise ConfigurationError(f"There is no benchmark {name!r}. Choose one of: {', '.join(BENCHMARKS)}.")
    folder = Path(__file__).parents[3] / "benchmarks"
    if not (folder / "harness.py").is_file():
        raise ConfigurationError(
            "The benchmarks are not installed. Clone ragweave's repository and run pip install -e . there."
        )
    environment = {**os.environ, JSON_VARIABLE: "1" if as_json else "0"}
    failed = []
    benchmarks = [name] if name else _BY_DEFAULT
    for number, benchmark in enumerate(benchmarks, start=1):
        note(f"{benchmark} ({number} of {len(benchmarks)})")
        script = folder / f"{benchmark.replace('-', '_')}.py"
        command = [sys.executable, str(script), *(options or [])]
        if subprocess.run(command, env=environment, check=False).returncode:  # noqa: S603
            failed.append(benchmark)
    if failed:
        raise typer.Exit(1)
