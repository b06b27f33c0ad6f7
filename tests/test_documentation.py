"""Every command and Python block of README and docs runs, in the order in which a reader meets them.

A block that needs what a test machine does not have, such as a hub, follows a comment `<!-- not run: ... -->`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from ragweave.cli import app
from ragweave.pipeline import embedded
from ragweave.serving import server as serving_server
from tests.support.databases import Postgres, free_port
from tests.support.waiting import PATIENCE, wait_until

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TRAINS = "training-tutorial.md"
"""A page whose commands take minutes."""
BLOCK = re.compile(
    r"(?P<skip><!-- not run: .+? -->\n+)?^```(?P<language>sh|python)\n(?P<code>.*?)^```", re.M | re.S
)
FENCE = re.compile(r"^```(\w*)\n.*?^```$", re.M | re.S)
DATA = {"", "json", "text", "yaml"}
"""Languages of blocks that nothing can run."""
NOT_RUN = ("make ", "pip install ")
"""Commands that would run these tests, or change the environment that they run in."""
FIRST = ("ragweave demo", "ragweave index samples --output kb", "ragweave index docs --output kb")
"""The commands that the pages begin with; what they make is made once for all of them."""
INDEXED = ["embedded.md", "indexes.md", "knowledge-base.md", "models.md", "retrieval.md"]
"""The pages that are indexed: those that commands name, and the one that answers their question."""


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


def is_run(command: str) -> bool:
    return command not in FIRST and not command.startswith(NOT_RUN)


def shows_something(page: Path) -> bool:
    python = any(block.language == "python" and not block.skipped for block in blocks_of(page))
    return python or any(is_run(command) for command in commands_of(page, with_skipped=False))


SHOWN = [
    pytest.param(page, marks=[pytest.mark.slow, pytest.mark.timeout(3000)] if page.name == TRAINS else [])
    for page in PAGES
    if shows_something(page)
]


@pytest.fixture(scope="module", autouse=True)
def small_generator() -> Iterator[None]:
    """Load the embedded generator once, and three of its 30 layers: no page depends on how well it answers."""
    load_generator = embedded.load_generator

    @functools.cache
    def load_part(**options: Any) -> Any:
        generator = load_generator(**options)
        del generator.model.layers[3:]
        generator.config.num_hidden_layers = 3
        return generator

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "load_generator", load_part)
        yield


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sample documents, the beginnings of some docs, and the knowledge base that pages ask."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "docs" / "examples", folder / "docs" / "examples")
    for name in INDEXED:
        (folder / "docs" / name).write_text((ROOT / "docs" / name).read_text("utf-8")[:3000], "utf-8")
    run(folder, "ragweave demo")
    run(folder, "ragweave index docs samples --output kb")
    return folder


@pytest.fixture(scope="module")
def named_database(postgres: Postgres) -> Postgres:
    """A server with the database that the pages name."""
    postgres.database("rag")
    return postgres


@pytest.fixture
def servers(page: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a page names databases, what libpq takes for parts that a URI leaves out."""
    if "postgresql:///" in page.read_text("utf-8"):
        monkeypatch.setenv("PGHOST", str(request.getfixturevalue("named_database").socket))
        monkeypatch.setenv("PGUSER", "postgres")


def environment() -> dict[str, str]:
    """The environment of commands: one thread, the programs of this Python, and the examples of the clone."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    modules = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path, "PYTHONPATH": modules}


@contextlib.contextmanager
def serving(command: str) -> Iterator[None]:
    """A command that serves in a thread; it has to start, and to end when it is told to."""
    servers, create = [], serving_server.create_server
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            serving_server, "create_server", lambda *own: servers.append(create(*own)) or servers[0]
        )
        thread = threading.Thread(
            target=app, args=(shlex.split(command)[1:],), kwargs={"standalone_mode": False}
        )
        thread.start()
        wait_until(lambda: not thread.is_alive() or (servers and servers[0].started))
        try:
            assert thread.is_alive()
            yield
        finally:
            for server in servers:
                server.should_exit = True
            thread.join(PATIENCE)
        assert not thread.is_alive()


def run(folder: Path, command: str) -> str:
    """The standard output of a shell command that succeeds.

    A command of ragweave runs in this process, since a new one would import torch and transformers first.
    """
    before, _, last = command.rpartition(" | ")
    if last.startswith("ragweave "):
        text = run(folder, before) if before else None
        with contextlib.chdir(folder):
            result = CliRunner().invoke(app, shlex.split(last)[1:], input=text)
        assert result.exit_code == 0, f"{command}\n{result.output}"
        return result.stdout
    process = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True, timeout=1500
    )
    assert process.returncode == 0, f"{command}\n{process.stdout}\n{process.stderr}"
    return process.stdout


def test_tests_that_are_named_exist():
    named = {own for page in PAGES for own in re.findall(r"`([\w/]+\.py)::(\w+)`", page.read_text("utf-8"))}
    missing = [
        f"{file}::{name}"
        for file, name in sorted(named)
        if f"def {name}(" not in (ROOT / "tests" / file).read_text("utf-8")
    ]
    assert len(named) > 100
    assert not missing


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_of_languages_that_are_known(page: Path):
    """A block of another language, or an indented one, would be shown and never run."""
    text = page.read_text("utf-8")
    languages = [m[1] for m in FENCE.finditer(text)]
    assert len(re.findall(r"^ *```", text, re.M)) == 2 * len(languages)
    assert len(blocks_of(page)) == len([own for own in languages if own not in DATA])


def test_pages_show_what_is_run():
    """The guide's main pages are run: not all of their blocks are marked as not run."""
    shown = {param.values[0].name for param in SHOWN}
    assert {"README.md", "databases.md", "evaluation.md", "indexes.md", "knowledge-base.md"} <= shown
    assert {"retrieval.md", "serving.md", "tutorial.md", TRAINS} <= shown
    assert len(commands_of(ROOT / "README.md", with_skipped=False)) >= 6


def test_containers_run_commands_that_exist():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    for name in ("index", "serve"):
        command, *arguments = services[name]["command"]
        group = typer.main.get_command(app)
        parsed = group.get_command(typer.Context(group), command).make_context(command, arguments)
        assert "postgresql://postgres@database/rag" in str(parsed.params)
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text("utf-8"), re.M)
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert all((ROOT / path).exists() and f"!{path}" in ignored for line in copied for path in line.split())


def test_make_targets_and_extras_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    commands = [command for page in PAGES for command in commands_of(page)]
    made = {command.split()[1] for command in commands if command.startswith("make ")}
    installed = {
        extra
        for command in commands
        for names in re.findall(r"(?:ragweave|\.)\[([\w,]+)\]", command)
        for extra in names.split(",")
    }
    assert made
    assert made <= set(targets)
    assert installed
    assert installed <= set(extras)


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_what_a_page_shows_runs(
    page: Path,
    workplace: Path,
    servers: None,
    monkeypatch: pytest.MonkeyPatch,
    quiet_transformers: None,
):
    port = free_port()  # the one that the page names may be taken
    monkeypatch.chdir(workplace)
    with contextlib.ExitStack() as running:
        # The commands first: a page's Python may open what they made.
        for shown in filter(is_run, commands_of(page, with_skipped=False)):
            command = at_port(shown, port)
            if command.startswith(("ragweave serve ", "ragweave mcp ")):
                option = f" --port {port}" if command.startswith("ragweave serve ") else ""
                running.enter_context(serving(command + option))
                continue
            output = run(workplace, command)
            if command.startswith("curl -s "):
                response = json.loads(output)
                assert response.get("answers") or response["result"]
            elif "--json" in command:
                rows = [json.loads(line) for line in output.splitlines()]
                assert rows
                assert all(rows)
        names: dict[str, object] = {}
        for block in blocks_of(page):
            if block.language == "python" and not block.skipped:
                code = at_port(block.code, port)
                exec(compile(code, f"{page.name}", "exec"), names)  # noqa: S102  # the project's own pages


def at_port(text: str, port: int) -> str:
    """Commands or code that ask a server at another port."""
    return re.sub(r"(?<=127\.0\.0\.1:)\d+", str(port), text)
