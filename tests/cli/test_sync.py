"""ragweave sync makes a knowledge base hold what its sources hold: once, as a preview, or after every change."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from ragweave import KnowledgeBase
from tests.cli.test_knowledge_base import kb, notes, run, succeed  # noqa: F401 (fixtures)
from tests.support.documents import write
from tests.support.processes import command
from tests.support.waiting import wait_until


def sources(folder):
    return {name.rpartition("/")[2] for name in KnowledgeBase.open(folder).sources()}


def test_new_changed_and_missing_files_in_one_version(kb, notes, tmp_path):  # noqa: F811
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text("A text from elsewhere.")
    succeed("add", kb, elsewhere)
    elsewhere.unlink()
    (notes / "peru.md").unlink()
    (notes / "ulm.txt").write_text("Ulm lies in the south.")
    (notes / "new.txt").write_text("A new text.")

    preview = succeed("sync", kb, notes, "--dry-run").stdout
    assert preview.splitlines() == [
        f"new: {notes / 'new.txt'}",
        f"changed: {notes / 'ulm.txt'}",
        f"removed: {notes / 'peru.md'}",
        "1 new, 1 changed, 1 removed, 0 skipped. Nothing was changed.",
    ]
    as_json = json.loads(succeed("sync", kb, notes, "--dry-run", "--json").stdout)
    assert as_json["removed"] == [str(notes / "peru.md")]
    assert KnowledgeBase.open(kb).version == "000002"

    result = succeed("sync", kb, notes)
    assert "version 000003" in result.stdout
    assert "(2 passages added, 2 deleted, 2 sources read, 1 source removed)" in result.stdout
    # What was not read from below the sources stays, whether it exists or not.
    assert sources(kb) == {"ulm.txt", "new.txt", "elsewhere.txt"}
    assert "(nothing has changed)" in succeed("sync", kb, notes).stdout
    assert KnowledgeBase.open(kb).version == "000003"


def test_an_empty_folder_removes_everything_and_a_missing_one_nothing(kb, notes):  # noqa: F811
    moved = notes.rename(notes.with_name("moved"))
    missing = run("sync", kb, notes)
    assert missing.exit_code == 1
    assert "There is no file or folder" in missing.stderr
    assert len(KnowledgeBase.open(kb)) == 2
    notes.mkdir()
    succeed("sync", kb, notes)
    assert (len(KnowledgeBase.open(kb)), sources(kb)) == (0, set())
    succeed("sync", kb, moved)
    assert sources(kb) == {"peru.md", "ulm.txt"}


def test_older_versions_are_kept_up_to_a_number(kb, notes):  # noqa: F811
    for number in range(3):
        (notes / "new.txt").write_text(f"Text number {number}.")
        succeed("sync", kb, notes)
    assert len(KnowledgeBase.open(kb).version_names()) == 4
    succeed("sync", kb, notes, "--keep", 1)
    assert KnowledgeBase.open(kb).version_names() == ["000003", "000004"]


def test_patterns_and_standard_input(kb, notes):  # noqa: F811
    (notes / "other.txt").write_text("Another text.")
    for name in ("peru.md", "ulm.txt"):
        (notes / name).unlink()
    succeed("sync", kb, notes / "*.txt")
    assert sources(kb) == {"peru.md", "other.txt"}
    refused = run("sync", kb, "-")
    assert refused.exit_code == 1
    assert "Standard input" in refused.stderr


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("*.txt", {"old/cuzco.txt", "deep/er/arequipa.txt", "a[1]/tacna.txt"}),
        ("old", {"ulm.txt", "deep/er/arequipa.txt", "a[1]/tacna.txt"}),
        ("**/*.txt", set()),
        ("d*/er", {"ulm.txt", "old/cuzco.txt", "a[1]/tacna.txt"}),
        ("*d*", {"ulm.txt", "a[1]/tacna.txt"}),
        ("a[1]", {"ulm.txt", "old/cuzco.txt", "deep/er/arequipa.txt"}),
    ],
)
def test_what_is_missing_below_a_pattern_is_removed_and_no_more(tmp_path, tiny_encoder_path, pattern, left):
    """A star stays within a name, as where files are looked for; two cross folders."""
    files = ("ulm.txt", "old/cuzco.txt", "deep/er/arequipa.txt", "a[1]/tacna.txt")
    for folder in ("", "old/", "deep/er/", "a[1]/"):  # so that every pattern matches something
        write(tmp_path / f"notes/{folder}stays.txt", f"A text that stays in {folder or 'notes'}.")
    for name in files:
        write(tmp_path / "notes" / name, f"A text of {name}.")
    base = tmp_path / "kb"
    succeed("index", tmp_path / "notes", "--output", base, "--model", tiny_encoder_path)
    for name in files:
        (tmp_path / "notes" / name).unlink()
    succeed("sync", base, tmp_path / "notes" / pattern)
    kept = {
        Path(source).relative_to(tmp_path / "notes").as_posix()
        for source in KnowledgeBase.open(base).sources()
    }
    assert {name for name in kept if not name.endswith("stays.txt")} == left


def test_a_file_that_exists_but_is_ignored_is_not_removed(kb, notes):  # noqa: F811
    (notes / ".draft.txt").write_text("A draft.")
    succeed("add", kb, notes / ".draft.txt")
    succeed("sync", kb, notes)
    assert ".draft.txt" in sources(kb)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for processes")
def test_watch_follows_changes_until_it_is_interrupted(notes, tmp_path, tiny_encoder_path):  # noqa: F811
    # The knowledge base lies in the folder that is watched: its own changes must not count.
    kb = notes / "kb"  # noqa: F811
    succeed("index", notes, "--output", kb, "--model", tiny_encoder_path)
    (notes / "ulm.txt").unlink()
    with command("sync", kb, notes, "--watch", folder=tmp_path) as process:
        wait_until(lambda: sources(kb) == {"peru.md"})
        (notes / "new.txt").write_text("A new text.")
        wait_until(lambda: sources(kb) == {"peru.md", "new.txt"})
        (notes / "peru.md").rename(tmp_path / "peru.md")
        wait_until(lambda: sources(kb) == {"new.txt"})
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0, process.stderr
        stdout, stderr = process.stdout, process.stderr
    versions = [line.split("version ")[1].split(",")[0] for line in stdout.splitlines()]
    assert versions == sorted(set(versions))
    assert f"Stopped at version {versions[-1]}." in stderr
    base = KnowledgeBase.open(kb)
    base.verify()
    assert base.version == versions[-1]
