"""A fault at every call that writes: an error, or the end of the process there and then."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from ragweave.errors import KnowledgeBaseError
from tests.faults.conftest import CHANGES, content


class PowerCutError(BaseException):
    """Nothing reaches the disk any more."""


class Faults:
    """Counts calls that write, and fails at one of them: once, or from there on."""

    def __init__(self, monkeypatch, at, *, for_good):
        self.calls, self.at, self.for_good = 0, at, for_good
        for name in ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink"):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        opened = Path.open
        monkeypatch.setattr(
            Path, "open", lambda path, *args, **options: self.file(opened(path, *args, **options))
        )

    def counted(self, call):
        def counting(*args, **options):
            self.call()
            return call(*args, **options)

        return counting

    def call(self):
        self.calls += 1
        if self.for_good and self.calls >= self.at:
            raise PowerCutError
        if self.calls == self.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def file(self, file):
        return CountedFile(file, self) if file.writable() else file


class CountedFile:
    """A file whose writes count; where one fails for good, half of it has been written."""

    def __init__(self, file, faults):
        self.file, self.faults = file, faults

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        try:
            self.faults.call()
        except BaseException:
            self.file.write(data[: len(data) // 2])
            raise
        return self.file.write(data)


def files_in(folder):
    """The content of all files below a folder."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("for_good", [False, True], ids=["error", "power-cut"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_in_force_is_whole(folder, tiny_encoder, change, for_good, monkeypatch):
    where = folder()
    target = where / ("new" if change == "build" else "kb")
    before = content(target) if target.exists() else None
    CHANGES[change](where, tiny_encoder)
    after = content(target)
    outcomes, checked = set(), []
    for at in count(1):
        where = folder()
        with monkeypatch.context() as patch:
            faults = Faults(patch, at, for_good=for_good)
            with suppress(PowerCutError, OSError, KnowledgeBaseError):
                CHANGES[change](where, tiny_encoder)
        if faults.calls < at:
            break
        files = files_in(where)
        if files in checked:  # most faults leave what the one before them left
            continue
        checked.append(files)
        found = content(target) if target.exists() else None
        assert found in (before, after), at
        outcomes.add("before" if found == before else "after")
        # What was begun does not hinder doing it again.
        if found == before:
            CHANGES[change](where, tiny_encoder)
            assert content(target) == after, at
        left = {path.name for path in where.iterdir()} - {"kb", "new", "notes"}
        assert not left or (found == after and for_good), (at, left)
    assert at > 5
    assert "before" in outcomes
