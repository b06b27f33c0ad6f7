"""add, delete, compact, reembed, versions and rollback change a knowledge base as they say."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from typer.testing import CliRunner

from ragweave.cli import app
from tests.support.encoders import save_tiny_encoder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "peru.md").write_text("# Peru\n\nLima is the capital of Peru.")
    (folder / "ulm.txt").write_text("Ulm is on the danube.")
    return folder


@pytest.fixture
def kb(notes, tmp_path, tiny_encoder_path):
    succeed("index", notes, "--output", tmp_path / "kb", "--model", tiny_encoder_path)
    return tmp_path / "kb"


def test_the_encoder_is_loaded_only_for_what_is_to_be_embedded(notes, tmp_path, tiny_encoder_path):
    encoder = shutil.copytree(tiny_encoder_path, tmp_path / "encoder")
    folder = tmp_path / "kb"
    succeed("index", notes, "--output", folder, "--model", encoder)
    moved = encoder.rename(tmp_path / "moved")  # loading it fails
    for command in ("add", "sync"):
        assert "(nothing has changed)" in succeed(command, folder, notes).stdout
    (notes / "peru.md").unlink()
    assert "1 source removed" in succeed("sync", folder, notes).stdout
    (notes / "new.txt").write_text("A new text.")
    other = save_tiny_encoder(tmp_path / "other", seed=1)
    for command in ("add", "sync"):
        assert run(command, folder, notes).exit_code == 1
        refused = run(command, folder, notes, "--model", other)
        assert refused.exit_code == 1
        assert "was embedded by the encoder" in refused.stderr
    assert "1 passage added" in succeed("add", folder, notes, "--model", moved).stdout


def test_every_change_makes_a_version(kb, notes):
    (notes / "ulm.txt").write_text("Ulm lies in the south.")
    (notes / "bad.txt").write_bytes(b"\xff")
    added = succeed("add", kb, notes)
    assert "2 passages from 2 documents, version 000002" in added.stdout
    assert "(1 passage added, 1 deleted, 1 source read, 1 source unchanged, 1 source skipped)" in added.stdout
    assert added.stderr.startswith("warning: skipped: The file ")
    again = succeed("add", kb, notes)
    assert "version 000002" in again.stdout
    assert "(nothing has changed)" in again.stdout
    assert again.stderr.count("bad.txt") == 1
    strict = run("add", kb, notes, "--strict")
    assert (strict.exit_code, strict.stdout) == (1, "")
    assert "bad.txt" in strict.stderr
    deleted = json.loads(succeed("delete", kb, "--id", "peru.md", "--json").stdout)
    assert (deleted["passages"], deleted["version"]) == (1, "000003")
    rows = [json.loads(line) for line in succeed("versions", kb, "--json").stdout.splitlines()]
    assert [(row["version"], row["change"], row["in_force"]) for row in rows] == [
        ("000001", "build", False),
        ("000002", "add", False),
        ("000003", "delete", True),
    ]
    rolled_back = succeed("rollback", kb, "1")
    assert "version 000001 is current, 2 passages" in rolled_back.stdout
    assert json.loads(succeed("rollback", kb, "000003", "--json").stdout)["version"] == "000003"
    compacted = succeed("compact", kb, "--keep", "0")
    assert "1 passage from 1 document, version 000004" in compacted.stdout
    table = succeed("versions", kb).stdout
    assert "* 000004" in table
    assert "000003" not in table
    assert re.search(r"Verified: \d+ files, [\d,]+ bytes", succeed("info", kb, "--verify").stderr)


def test_reembed_with_another_encoder(kb, tmp_path):
    encoder = save_tiny_encoder(tmp_path / "other", seed=5)
    reembedded = succeed("reembed", kb, "--model", encoder, "--output", tmp_path / "new")
    assert "2 passages from 2 documents, version 000001" in reembedded.stdout
    again = json.loads(
        succeed("reembed", kb, "--model", encoder, "--output", tmp_path / "new", "--keep", 0, "--json").stdout
    )
    assert (again["passages"], again["version"]) == (2, "000002")
    missing = run("reembed", tmp_path / "gone", "--model", encoder, "--output", tmp_path / "x")
    assert missing.exit_code == 1
    assert "no knowledge base" in missing.stderr


def test_wrong_arguments_are_reported(kb, tmp_path):
    for arguments, words in (
        (("delete", kb, "--id", "gone"), "no passage or document 'gone'"),
        (("delete", kb, "--source", "gone"), "Nothing in"),
        (("rollback", kb, "000009"), "there are 000001"),
        (("add", kb, tmp_path / "gone"), "no file or folder"),
        (("add", tmp_path / "gone", tmp_path), "no knowledge base"),
        (("compact", tmp_path), "not a knowledge base"),
        (("versions", tmp_path), "not a knowledge base"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("error: ")
        assert words in result.stderr
    assert run("delete", kb).exit_code == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--index", "nonsense"], "no index 'nonsense'"),
        (["--set", "nprobe"], "Write NAME=NUMBER"),
        (["--set", "speed=9"], "no index parameter speed"),
        (["--index", "hnsw", "--set", "nprobe=4"], "no parameter nprobe"),
        (["--index", "IVF64,SQ8"], "cannot train"),
    ],
)
def test_wrong_index_options_write_nothing(notes, tmp_path, tiny_encoder_path, options, words):
    result = run("index", notes, "--output", tmp_path / "kb", "--model", tiny_encoder_path, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


@pytest.mark.parametrize("kind", ["flat", "hnsw", "sq8", "IVF4,Flat"])
def test_every_index_kind(tmp_path, tiny_encoder_path, kind):
    lines = "".join(f'{{"id": "{n}", "text": "river {n} of peru"}}\n' for n in range(200))
    (tmp_path / "rivers.jsonl").write_text(lines)
    setting = {"hnsw": ["--set", "efSearch=200"], "IVF4,Flat": ["--set", "nprobe=1"]}.get(kind, [])
    command = ("index", tmp_path / "rivers.jsonl", "--output", tmp_path / "kb", "--model", tiny_encoder_path)
    built = succeed(*command, "--index", kind, *setting)
    info = json.loads(succeed("info", tmp_path / "kb", "--json", "--verify").stdout)
    assert info["index"] == kind
    # So few passages are all compared, whatever the kind.
    assert info["recall"] == {"5": 1, "50": 1, "100": 1} and "Recall" not in built.stdout
