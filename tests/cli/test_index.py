"""ragweave index and info, standard input as a source, errors as sentences, and the help of all commands."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys

import pytest
import torch
import typer
from openpyxl import Workbook
from typer.testing import CliRunner

import ragweave
from ragweave.cli import COMMANDS, app, errors_as_sentences
from ragweave.knowledge.base import KnowledgeBase

COMMAND = [sys.executable, "-m", "ragweave"]


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "peru.md").write_text("# Peru\n\nLima is the capital of Peru.")
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_index_then_info(notes, tmp_path, tiny_encoder_path):
    built = run("index", notes, "--output", tmp_path / "kb", "--model", tiny_encoder_path, "--json")
    assert built.exit_code == 0, built.output
    shown = run("info", tmp_path / "kb", "--json", "--verify")
    assert json.loads(shown.stdout) == json.loads(built.stdout)
    assert shown.stdout.count("\n") == 1
    info = json.loads(shown.stdout)
    assert {"passages", "version", "encoder", "dimension", "index", "bytes"} <= info.keys()
    assert (info["passages"], info["encoder"]) == (1, str(tiny_encoder_path))


def test_text_output(notes, tmp_path, tiny_encoder_path):
    built = run("index", notes, "--output", tmp_path / "kb", "--model", tiny_encoder_path)
    assert "1 passage from 1 document, version 000001" in built.stdout
    assert built.stderr == ""
    shown = run("info", tmp_path / "kb")
    assert "000001" in shown.stdout
    assert re.search(r"^deleted +0\.0% *$", shown.stdout, re.M)
    assert not re.search(r"None|{}|_prompt", shown.stdout)  # what does not apply
    again = run("index", notes, "--output", tmp_path / "kb", "--model", tiny_encoder_path, "--overwrite")
    assert "version 000002" in again.stdout


def test_ignored_files_are_counted_and_named(notes, tmp_path, tiny_encoder_path):
    for name in ("a.bin", "b.bin", "photo.png", ".hidden"):
        (notes / name).write_text("text")
    (notes / "bad.jsonl").write_text("no JSON")
    built = run("index", notes, "--output", tmp_path / "kb", "--model", tiny_encoder_path)
    assert "4 ignored: 2 .bin, 1 hidden, 1 .png. Add --verbose to see their names." in built.stderr
    assert "1 source read, 1 source skipped" in built.stdout
    assert str(notes / "a.bin") not in built.stderr
    added = run("add", tmp_path / "kb", notes / "peru.md", notes, "--verbose")
    assert f"ignored (.bin): {notes / 'a.bin'}" in added.stderr
    shown = json.loads(run("info", tmp_path / "kb", "--sources", "--json").stdout)
    assert shown["sources"] == {str(notes / "peru.md"): 1}
    assert shown["ignored"] == {
        str(notes / name): reason
        for name, reason in (
            (".hidden", "hidden"),
            ("a.bin", ".bin"),
            ("b.bin", ".bin"),
            ("photo.png", ".png"),
        )
    }
    assert "bad.jsonl" in shown["skipped"][0]
    lines = run("info", tmp_path / "kb", "--sources").stdout.splitlines()
    assert lines[0] == f"{notes / 'peru.md'}: 1 passage"
    assert f"{notes / 'photo.png'}: ignored (.png)" in lines
    assert lines[-1].startswith("skipped: ") and "bad.jsonl" in lines[-1]


def test_lost_parts_are_warned_of_or_refused(tmp_path, tiny_encoder_path):
    (tmp_path / "a.log").write_bytes(b"Lima is in Per\xfa. " + b"Ulm is on the Danube. " * 1000)
    command = ("index", tmp_path / "a.log", "--output", tmp_path / "kb", "--model", tiny_encoder_path)
    refused = run(*command, "--strict")
    assert refused.exit_code == 1 and "a.log: 1 bytes are not UTF-8" in refused.stderr
    assert "warning: a.log: 1 bytes are not UTF-8" in run(*command).stderr


def test_columns_and_hidden_sheets(tmp_path, tiny_encoder_path):
    (tmp_path / "a.csv").write_text("City,Country,River\nLima,Peru,Rimac\n")
    book = Workbook()
    book.active.append(["City", "Country"])
    book.active.append(["Ulm", "Germany"])
    hidden = book.create_sheet("Prices")
    hidden.append(["City", "Country"])
    hidden.append(["Jena", "Thuringia"])
    hidden.sheet_state = "hidden"
    book.save(tmp_path / "b.xlsx")
    command = (
        "index",
        tmp_path / "a.csv",
        tmp_path / "b.xlsx",
        "--model",
        tiny_encoder_path,
        "--columns",
        "title=country,text=CITY",
    )
    plain = run(*command, "--output", tmp_path / "plain")
    assert "warning: b.xlsx: hidden sheets are left out: Prices" in plain.stderr
    assert "River" not in plain.stderr  # what is not text is metadata
    assert '"River": ' in KnowledgeBase.open(tmp_path / "plain").passage(0).metadata
    full = run(*command, "--output", tmp_path / "full", "--hidden-sheets", "--columns", "text=Currency")
    assert "a.csv: it has no column Currency, which the settings name" in full.stderr
    passages = [passages_of(tmp_path / name) for name in ("plain", "full")]
    assert passages == [
        {("Peru", "Lima"), ("Germany", "Ulm")},
        {("Peru", "Lima"), ("Germany", "Ulm"), ("Thuringia", "Jena")},
    ]
    added = run(
        "add", tmp_path / "plain", tmp_path / "b.xlsx", "--model", tiny_encoder_path, "--columns", "Country"
    )
    assert added.exit_code == 1 and "--columns Country is invalid. Write title=COLUMN" in added.stderr


def passages_of(path):
    base = KnowledgeBase.open(path)
    return {(passage.title, passage.text) for passage in map(base.passage, range(len(base)))}


def test_embedded_is_the_default_encoder(notes, tmp_path, tiny_encoder_path, monkeypatch):
    monkeypatch.setattr("ragweave.encoders.text_encoder.embedded_encoder_path", lambda: tiny_encoder_path)
    built = run("index", notes, "--output", tmp_path / "kb", "--json")
    assert json.loads(built.stdout)["encoder"] == "sentence-transformers/all-MiniLM-L6-v2"


def fails(result, words):
    """One sentence on standard error, exit code 1, nothing on standard output."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert words in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bad.txt", b"\xff", "iconv"),
        ("bad.csv", b"\n\n", "is empty"),
        ("bad.jsonl", b"{\n", "Line 1"),
        ("blank.txt", b" \n", "no text"),
        ("bad.pdf", b"%PDF", "damaged"),
        ("bad.png", b"", ".txt"),
    ],
)
def test_unreadable_sources_are_reported(tmp_path, tiny_encoder_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    fails(run("index", tmp_path / name, "--output", tmp_path / "kb", "--model", tiny_encoder_path), words)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_files_without_text_are_counted(notes, tmp_path, tiny_encoder_path):
    (notes / "empty.txt").touch()
    arguments = ("index", notes, "--output", tmp_path / "kb", "--model", tiny_encoder_path)
    assert "sources read, 1 without text)" in run(*arguments).stdout
    assert f"{notes / 'empty.txt'}: 0 passages" in run("info", tmp_path / "kb", "--sources").stdout


def test_missing_sources_and_models_are_reported(notes, tmp_path, tiny_encoder_path):
    output = ("--output", tmp_path / "kb")
    fails(run("index", tmp_path / "gone", *output), "no file or folder")
    (tmp_path / "empty").mkdir()
    fails(run("index", tmp_path / "empty", *output), "is empty")
    fails(run("index", notes, *output, "--model", tmp_path / "no-model"), "no-model")
    fails(run("index", notes, "--output", notes, "--model", tiny_encoder_path), "choose another output")
    assert not (tmp_path / "kb").exists()


def test_info_without_a_knowledge_base(tmp_path):
    fails(run("info", tmp_path), "is not a knowledge base")
    fails(run("info", tmp_path / "gone"), "ragweave index")


def test_full_disk(notes, tmp_path, tiny_encoder_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ragweave.knowledge.store.write_vectors", full)
    fails(
        run("index", notes, "--output", tmp_path / "kb", "--model", tiny_encoder_path),
        "No space left on device",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_interrupt(notes, tmp_path, tiny_encoder_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("ragweave.knowledge.store.write_vectors", interrupt)
    result = run("index", notes, "--output", tmp_path / "kb", "--model", tiny_encoder_path)
    assert (result.exit_code, result.stderr) == (1, "Interrupted; nothing half-written was left behind.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_unexpected_failures_hide_the_traceback_unless_asked(notes, tmp_path, tiny_encoder_path, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("ragweave.knowledge.store.write_vectors", broken)
    arguments = ("index", notes, "--output", tmp_path / "kb", "--model", tiny_encoder_path)
    fails(
        run(*arguments),
        "ZeroDivisionError: by zero. Known causes: a damaged file (check a knowledge base with",
    )
    monkeypatch.setenv("RAGWEAVE_DEBUG", "1")
    assert isinstance(run(*arguments).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError(), "ValueError: no message. Known causes: "),
        (
            ValueError("bad."),
            "run the command again with RAGWEAVE_DEBUG=1 and report the traceback: see 'Report a ",
        ),
        (MemoryError("8 GiB"), "The memory is full (8 GiB). Close other programs"),
        (torch.OutOfMemoryError("CUDA out of memory"), "The memory is full (CUDA out of memory). Close"),
        (ImportError("no name x"), "has the wrong version (no name x). Run pip install --upgrade ragweave."),
        (
            PermissionError(13, "Permission denied", "/x"),
            "Permission denied: /x. Check that the path exists and",
        ),
        (OSError(28, "No space left on device", "/x"), "The disk of /x is full. Free some space"),
    ],
)
def test_a_failure_comes_with_its_known_causes(capsys, error, words):
    with pytest.raises(typer.Exit), errors_as_sentences():
        raise error
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert words in message


@pytest.mark.parametrize(
    "arguments",
    [["index"], ["index", "x"], ["index", "x", "--output", "kb", "--words", "0"], ["info"], ["nothing"]],
)
def test_usage_errors_exit_with_2(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


@pytest.mark.parametrize("command", [*COMMANDS, "eval compare", "train retriever"])
def test_every_command_has_help_with_examples(command):
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"ragweave {command}" in result.stdout.split("Examples:")[1]


def test_help_lists_every_command():
    assert run("--version").stdout == f"ragweave {ragweave.__version__}\n"
    rows = run("--help").stdout.split("Commands")[1].splitlines()
    names = [row.split()[1] for row in rows if len(row.split()) > 1]
    assert [name for name in names if name in COMMANDS] == list(COMMANDS)


def test_as_a_process(notes, tmp_path, tiny_encoder_path):
    result = subprocess.run(
        [*COMMAND, "index", notes, "--json", "--output", tmp_path / "kb", "--model", tiny_encoder_path],
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["passages"] == 1


def test_help_loads_no_framework():
    program = (
        "import sys; from ragweave.cli import COMMANDS, app\n"
        "for command in ([], *([name] for name in COMMANDS)):\n"
        "    try: app([*command, '--help'])\n"
        "    except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'faiss', 'pyarrow', 'numpy', 'datasets'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "index" in result.stdout


def piped(text, *arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=text)


def test_standard_input_is_a_named_source(tmp_path, tiny_encoder_path):
    kb = tmp_path / "kb"
    rows = '{"id": "a", "title": "Peru", "text": "Lima."}\n{"id": "b", "title": "Ulm", "text": "A river."}\n'
    options = ["--model", tiny_encoder_path]
    built = piped(
        rows, "index", "-", "--stdin-format", "jsonl", "--stdin-name", "dump", "--output", kb, *options
    )
    assert built.exit_code == 0, built.output
    assert "2 passages from 2 documents" in built.stdout
    again = piped(rows, "add", kb, "-", "--stdin-format", "jsonl", "--stdin-name", "dump", *options)
    assert "nothing has changed" in again.stdout
    more = piped("A text.", "add", kb, "-", *options)
    assert "3 passages" in more.stdout
    changed = piped(rows[:46], "add", kb, "-", "--stdin-format", "jsonl", "--stdin-name", "dump", *options)
    assert changed.exit_code == 0, changed.output
    assert "2 passages from 2 documents" in changed.stdout
    deleted = run("delete", kb, "--source", "stdin")
    assert "1 passage from" in deleted.stdout


def test_chunking_is_recorded(tmp_path, notes, tiny_encoder_path):
    run(
        "index",
        notes,
        "--output",
        tmp_path / "kb",
        "--model",
        tiny_encoder_path,
        "--chunking",
        "words",
        "--words",
        3,
    )
    shown = json.loads(run("info", tmp_path / "kb", "--json").stdout)
    assert (shown["chunking"], shown["words"], shown["passages"]) == ("words", 3, 3)
    failed = run("index", notes, "--output", tmp_path / "other", "--words", 3, "--overlap", 2)
    assert failed.exit_code == 1
    assert "at most half of the passage size 3" in failed.stderr


def test_sample_documents(tmp_path, tiny_encoder_path):
    result = run("demo", tmp_path / "island")
    assert result.exit_code == 0, result.output
    commands = [line.split() for line in result.stdout.splitlines() if line.startswith("  ragweave ")]
    assert [command[1] for command in commands] == ["index", "ask", "serve"]
    assert run(*commands[0][1:4], tmp_path / "kb", "--model", tiny_encoder_path).exit_code == 0
    assert len(KnowledgeBase.open(tmp_path / "kb").sources()) == 5
    again = run("demo", tmp_path / "island")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "Name a new folder" in " ".join(again.stderr.split())
