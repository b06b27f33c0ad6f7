"""Every command and Python block in README and docs runs, in the order in which a reader meets them.

A block that needs what a test machine has not, such as a hub, follows a comment `<!-- not run: ... -->`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.databases import Postgres

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TRAINS = "training-tutorial.md"
"""A page whose commands take minutes."""
SHOWN = [
    pytest.param(page, marks=[pytest.mark.slow, pytest.mark.timeout(3000)] if page.name == TRAINS else [])
    for page in PAGES
]
BLOCK = re.compile(
    r"(?P<skip><!-- not run: .+? -->\n+)?^```(?P<language>sh|python)\n(?P<code>.*?)^```", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    skipped: bool


def blocks_of(page: Path) -> list[Block]:
    return [
        Block(m["language"], m["code"], m["skip"] is not None)
        for m in BLOCK.finditer(page.read_text("utf-8"))
    ]


def commands_of(page: Path, *, with_skipped: bool = True) -> list[str]:
    blocks = [block for block in blocks_of(page) if with_skipped or not block.skipped]
    lines = [line for block in blocks if block.language == "sh" for line in block.code.splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.strip()]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project's docs in it and the knowledge base that README builds from them."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("*.png", "*.svg"))
    run(folder, "ragweave index docs --output kb")
    return folder


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server with the database that the pages name."""
    server = Postgres(tmp_path_factory.mktemp("postgres") / "data")
    with server.connect() as connection:
        connection.execute("CREATE DATABASE rag")
    yield server
    server.close()


@pytest.fixture
def servers(page: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a page names databases, what libpq takes for parts that a URI leaves out."""
    if "postgresql:///" in page.read_text("utf-8"):
        monkeypatch.setenv("PGHOST", str(request.getfixturevalue("postgres").socket))
        monkeypatch.setenv("PGUSER", "postgres")


def environment() -> dict[str, str]:
    """What commands run in: one thread, the programs of this Python, and the examples of the clone."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path, "PYTHONPATH": str(ROOT)}


@contextmanager
def serving(folder: Path, command: str) -> Iterator[None]:
    """A command that serves, for as long as this lasts; it has to say where, and to end well."""
    with subprocess.Popen(
        shlex.split(command), cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stderr.readline()
            assert "Serving on http" in line, line + process.stderr.read()
            yield
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def run(folder: Path, command: str) -> str:
    result = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True, timeout=1500
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_are_named_exist(page: Path):
    for file, name in re.findall(r"`([\w/]+\.py)::(\w+)`", page.read_text("utf-8")):
        assert f"def {name}(" in (ROOT / "tests" / file).read_text("utf-8"), f"{file}::{name}"


def test_every_difference_and_part_of_the_specification_names_a_test():
    for name in ("differences.md", "specification.md"):
        rows = [line for line in (ROOT / "docs" / name).read_text("utf-8").splitlines() if line[:2] == "| "]
        heads = [row for row in rows if row.endswith("| Test |")]
        untested = [row for row in rows if row not in heads and "::test_" not in row]
        assert len(rows) - len(heads) > 20
        assert not untested


def test_the_site_builds_without_a_warning(tmp_path: Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    result = subprocess.run(
        command, cwd=ROOT, env={**environment(), "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
    pages = {page.with_suffix(".html").name for page in PAGES[1:]}
    assert {page.name for page in tmp_path.glob("*.html")} == pages | {"404.html"}
    assert "RagPipeline" in (tmp_path / "reference.html").read_text("utf-8")


def test_pages_have_blocks():
    assert len(commands_of(ROOT / "README.md")) >= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_and_extras_exist(page: Path):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    for command in commands_of(page):
        if command.startswith("make "):
            assert command.split()[1] in targets
        for named in re.findall(r"ragweave\[([\w,]+)\]", command):
            assert set(named.split(",")) <= set(extras)


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_what_a_page_shows_runs(
    page: Path,
    workplace: Path,
    servers: None,
    monkeypatch: pytest.MonkeyPatch,
    quiet_transformers: None,
):
    with ExitStack() as running:
        # The commands first: a page's Python may open what they made.
        for command in commands_of(page, with_skipped=False):
            if command.startswith("ragweave serve "):
                running.enter_context(serving(workplace, command))
            elif command.startswith("curl -s "):
                assert json.loads(run(workplace, command))["answers"]
            elif (
                command.startswith(("ragweave ", "python -m examples."))
                and command != "ragweave index docs --output kb"
            ):
                output = run(workplace, command)
                if "--json" in command:
                    for line in output.splitlines():
                        assert json.loads(line)
        monkeypatch.chdir(workplace)
        names: dict[str, object] = {}
        for block in blocks_of(page):
            if block.language == "python" and not block.skipped:
                exec(compile(block.code, f"{page.name}", "exec"), names)  # noqa: S102  # the project's own pages
