"""No text, title or file name reaches the terminal with characters that it obeys."""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner, Result

from ragweave.cli import LazyGroup, app
from ragweave.cli.console import (
    LogHandler,
    job_bars,
    note,
    print_json,
    print_text,
    stage_bars,
    stderr,
    stdout,
    warn,
)
from ragweave.errors import SourceError
from tests.support.documents import write
from tests.support.pipelines import save_rag_model

CLIPBOARD = "\x1b]52;c;aGk=\x07"
HOSTILE = f"{CLIPBOARD}\x9b31m\x7f\u202e\r"
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MARKUP = "[/] [link=x]y[/link] :smile:"


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert not OBEYED.search(result.output), result.output
    return result


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    write(folder / f"peru{CLIPBOARD}.md", f"# Peru {HOSTILE}\n\nLima {HOSTILE} is in Peru.")
    write(folder / f"bad{CLIPBOARD}.txt", b"\xff")
    write(folder / os.fsdecode(b"bad\xe9.txt"), b"\xff")
    write(folder / f"left{CLIPBOARD}.out", b"")
    (folder / f"link{CLIPBOARD}.txt").symlink_to("/etc/hostname")
    return folder


def test_every_command(notes: Path, tmp_path: Path, tiny_encoder_path: Path):
    kb = tmp_path / "kb"
    built = run("index", notes, "-o", kb, "--model", tiny_encoder_path, "--verbose")
    assert built.exit_code == 0
    assert "\ufffd]52;c;aGk=.out" in built.stderr
    assert r"bad\udce9.txt is not UTF-8" in built.stderr
    assert run("index", notes, "-o", tmp_path / "b", "--model", tiny_encoder_path, "--strict").exit_code == 1
    assert run("info", kb, "--sources").exit_code == 0
    assert run("delete", kb, "--id", CLIPBOARD).exit_code == 1
    model = save_rag_model(tmp_path / "model", tiny_encoder_path)
    asked = ("ask", "--kb", kb, "--model", model, "--max-new-tokens", 4, f"Where is {HOSTILE}Lima?")
    assert "Peru" in run(*asked).stdout
    answer = json.loads(run(*asked, "--json").stdout)
    assert HOSTILE.strip() in answer["passages"][0]["text"]  # JSON has escapes, which lose nothing


def test_tables_and_styles(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE, style="bold")
    table.add_row(f"Lima{HOSTILE}")
    stdout().print(table, HOSTILE, style="red")
    monkeypatch.setenv("FORCE_COLOR", "1")
    stdout().print(f"Ulm{CLIPBOARD}", style="red")
    text = capsys.readouterr().out
    assert not OBEYED.search(text.replace("\x1b[31m", "").replace("\x1b[0m", "")), text
    assert "\x1b[31mUlm\ufffd]52;c;aGk=" in text


def show_everywhere(text: str, *, fails: str) -> None:
    """Show a text in every way in which a command shows one."""
    print_text(text)
    print_json({text: [text]})
    warn(text)
    note(text)
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text, text)
    for console in (stdout(), stderr()):
        console.print(text, Text(text, style="bold"), table)
    warnings.warn(text, UserWarning, stacklevel=1)
    logging.getLogger("ragweave.serving").error("The document %s is damaged.", text)
    with job_bars() as advance:
        advance(text, 2, 1, text)
    with stage_bars() as bars:
        bars.start(text, 3)
        bars.advance(1)
    if fails == "mistake":
        raise SourceError(text)
    if fails == "usage":
        raise typer.BadParameter(text)
    raise KeyError(text)


@given(
    st.text(st.characters() | st.sampled_from("\x1b\x07\x08\x9b\u202e\u2066[]:/"), min_size=1, max_size=30),
    st.sampled_from(["mistake", "usage", "bug"]),
)
@example(HOSTILE, "mistake")
@example(MARKUP, "usage")
@example("\udb14", "mistake")  # a lone surrogate, which no encoding has
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_reaches_the_terminal_with_what_it_obeys(text: str, fails: str):
    single = typer.Typer(add_completion=False)
    single.command()(lambda: show_everywhere(text, fails=fails))

    class Group(LazyGroup):
        def get_command(self, ctx, cmd_name):
            return typer.main.get_command(single)

    application = typer.Typer(cls=Group, pretty_exceptions_enable=False)
    application.callback()(lambda: None)
    result = CliRunner().invoke(application, ["info"])
    assert result.exit_code == (2 if fails == "usage" else 1), result.exception
    assert not OBEYED.search(result.output), result.output
    assert "is damaged." in result.stderr


def test_a_usage_error_shows_no_control_characters():
    assert run("info", "kb", f"peru{CLIPBOARD}.md").exit_code == 2
    assert run(f"peru{CLIPBOARD}").exit_code == 2
    assert run("info", f"--peru{CLIPBOARD}").exit_code == 2
    assert run("ask", "--kb", "kb", "--beams", CLIPBOARD, "Why?").exit_code == 2


def test_markup_and_names_of_emoji_are_text(capsys: pytest.CaptureFixture[str]):
    table = Table(title=MARKUP)
    table.add_column(MARKUP)
    table.add_row(MARKUP)
    stdout().print(table, MARKUP, soft_wrap=True)
    assert capsys.readouterr().out.count(MARKUP) == 4


def test_progress_bars_show_markup_as_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", "200")
    with job_bars() as advance:
        advance(f"{MARKUP}{CLIPBOARD}", 2, 1, MARKUP)
    text = capsys.readouterr().err
    assert text.count(MARKUP) >= 2
    assert CLIPBOARD not in text


def test_a_logged_text_is_no_line_of_its_own(capsys: pytest.CaptureFixture[str]):
    handler = LogHandler()
    handler.handle(logging.LogRecord("ragweave", logging.ERROR, "", 0, "Damaged: %s", ("a\nerror: b",), None))
    assert capsys.readouterr().err == "Damaged: a\ufffderror: b\n"
