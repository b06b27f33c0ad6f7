"""Where things are kept that were computed once and for all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ragweave.pipeline.embedded import cache_folder, created_once
from tests.support.waiting import PATIENCE


def write(folder: Path) -> None:
    (folder / "file").write_text("whole", encoding="utf-8")


def fail(folder: Path) -> None:
    (folder / "file").write_text("half", encoding="utf-8")
    raise OSError(28, "No space left on device")


def test_the_folder_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAGWEAVE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("RAGWEAVE_CACHE", "~/own")
    assert cache_folder() == Path.home() / "own"
    monkeypatch.setenv("RAGWEAVE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ragweave"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "ragweave"


def test_it_is_created_once(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "thing"
    assert created_once(folder, write) == folder
    assert created_once(folder, fail) == folder
    assert (folder / "file").read_text(encoding="utf-8") == "whole"
    assert [path.name for path in folder.parent.iterdir()] == ["thing"]


def test_half_of_it_is_never_seen(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    with pytest.raises(OSError, match="No space"):
        created_once(folder, fail)
    assert list(tmp_path.iterdir()) == []
    created_once(folder, write)
    assert (folder / "file").read_text(encoding="utf-8") == "whole"


def test_what_it_replaces_is_deleted(tmp_path: Path) -> None:
    old, other, new = (tmp_path / name for name in ("thing-1", "other-1", "thing-2"))
    for folder in (old, other):
        created_once(folder, write, replaces="thing-*" if folder == old else "other-*")
    with pytest.raises(OSError, match="No space"):
        created_once(new, fail, replaces="thing-*")
    assert sorted(tmp_path.iterdir()) == [other, old]
    created_once(new, write, replaces="thing-*")
    assert sorted(tmp_path.iterdir()) == [other, new]


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(folder: Path) -> None:
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        created_once(tmp_path / "thing", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_several_at_once_get_one_whole_folder(tmp_path: Path) -> None:
    folder, together, seen = tmp_path / "thing", threading.Barrier(4), []

    def slowly(partial: Path) -> None:
        together.wait(timeout=PATIENCE)  # all have found nothing, and all create it
        write(partial)

    def ask() -> None:
        seen.append((created_once(folder, slowly) / "file").read_text(encoding="utf-8"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["whole"] * 4
    assert list(tmp_path.iterdir()) == [folder]


def test_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "thing").write_text("mine", encoding="utf-8")
    with pytest.raises(OSError, match="thing"):
        created_once(tmp_path / "thing", write)
    assert (tmp_path / "thing").read_text(encoding="utf-8") == "mine"
    assert len(list(tmp_path.iterdir())) == 1
