"""Settings reject values that cannot work, and keys are read from files and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragweave.errors import ConfigurationError
from ragweave.serving.settings import Batching, KeyRing, Limits, ServingSettings
from tests.support.serving import ADMIN_KEY, KEY


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Limits(questions=0), "questions is 0"),
        (lambda: Batching(max_batch=0), "max_batch is 0"),
        (lambda: Batching(max_wait=-1), "max_wait is -1"),
        (lambda: Batching(deadline=0), "deadline is 0"),
        (lambda: ServingSettings(n_docs=0), "n_docs is 0"),
        (lambda: ServingSettings(keep_versions=-1), "keep_versions is -1"),
        (lambda: ServingSettings(num_beams=9), "num_beams is 9, but the limit for requests is 8"),
        (lambda: ServingSettings(batching=Batching(max_queue=2)), "Raise max_queue"),
    ],
)
def test_invalid_values_are_rejected(make, words: str):
    with pytest.raises(ConfigurationError, match=words):
        make()


def test_keys_from_a_file(tmp_path: Path):
    file = tmp_path / "keys.txt"
    file.write_text(f"# of the press office\n{KEY}\n\n  {ADMIN_KEY}  \n")
    ring = KeyRing.from_file(file)
    assert ring.accepts(KEY)
    assert ring.accepts(ADMIN_KEY)
    for other in ("", KEY[:-1], KEY + " ", "# of the press office", "\udcff"):
        assert not ring.accepts(other)
    assert KEY not in repr(ring) + repr(vars(ring)) + repr(ServingSettings(keys=ring))


def test_a_key_file_may_begin_with_a_byte_order_mark(tmp_path: Path):
    file = tmp_path / "keys.txt"
    file.write_text(f"{KEY}\n{ADMIN_KEY}\n", encoding="utf-8-sig")
    assert KeyRing.from_file(file).accepts(KEY)


@pytest.mark.parametrize("content", ["", "# nothing\n", "ssh\n", "\xff"])
def test_files_without_keys_are_rejected(tmp_path: Path, content: str):
    file = tmp_path / "keys.txt"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"The key file .*keys\.txt") as rejected:
        KeyRing.from_file(file)
    assert "ssh" not in str(rejected.value).replace(str(file), "")


def test_missing_key_file(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        KeyRing.from_file(tmp_path / "none.txt")
