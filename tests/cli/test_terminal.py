"""No text, title or file name reaches the terminal with characters that it obeys."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import CliRunner, Result

from ragweave.cli import app
from ragweave.cli.console import stdout
from tests.support.documents import write
from tests.support.pipelines import save_rag_model

CLIPBOARD = "\x1b]52;c;aGk=\x07"
HOSTILE = f"{CLIPBOARD}\x9b31m\x7f\u202e\r"
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


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
