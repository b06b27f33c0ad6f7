"""Segments of single additions: they merge by themselves, keep no file open, and change no answer."""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ragweave.errors import OpenFilesError
from ragweave.knowledge.base import KnowledgeBase

# Words of the tiny encoder's vocabulary and of passages that several documents share.
TEXTS = ["lima is the capital of peru", "ulm is on the danube", "a river of peru"]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def write(folder: Path, number: int, *texts: str) -> Path:
    """A file of documents with ids of their own."""
    path = folder / f"{number}.jsonl"
    lines = (json.dumps({"id": f"{number}-{line}", "text": text}) for line, text in enumerate(texts))
    path.write_text("\n".join(lines))
    return path


def content(base: KnowledgeBase) -> dict[str, tuple[object, ...]]:
    """What a knowledge base gives for every passage: itself, its sources, its vector, and its scores by words."""
    _, rows = base.search(np.ones((1, 16), np.float32), len(base))
    score = base.text_scorer()
    by_words = [score(question).of(rows[0]).round(5) for question in ("peru river", "number 7")]
    return {
        base.passage(row).id: (
            base.passage(row),
            sorted(base.sources_of(row)),
            vector.round(5).tolist(),
            *scores,
        )
        for row, vector, *scores in zip(rows[0].tolist(), base.vectors_of(rows[0]), *by_words, strict=True)
    }


@pytest.fixture(scope="module")
def history(tmp_path_factory, tiny_encoder):
    """A knowledge base that grew by single files, some changed and some sharing passages, and its files."""
    tmp_path = tmp_path_factory.mktemp("history")
    files = {0: write(tmp_path, 0, *TEXTS, "number 0", "number 00")}
    base = KnowledgeBase.build(list(files.values()), tmp_path / "kb", encoder=tiny_encoder)
    for number in range(1, 25):
        shared = TEXTS[number % 3]
        files[number] = write(tmp_path, number, f"number {number}", shared)
        base = base.add([files[number]], encoder=tiny_encoder)
        if not number % 6:
            changed = write(tmp_path, number - 2, f"changed {number}", shared)
            base = base.add([changed], encoder=tiny_encoder)
        if not number % 7:
            base = base.delete(sources=[str(files.pop(number - 4))])
    return base, list(files.values())


@pytest.fixture
def grown(history, tmp_path):
    """A copy that a test may change."""
    base, files = history
    return KnowledgeBase.open(shutil.copytree(base.path, tmp_path / "kb")), files


def test_small_segments_merge_by_themselves(grown, tmp_path, tiny_encoder):
    base, files = grown
    sizes = [record.passages for record in base.manifest.segments]
    assert len(sizes) > 1
    assert all(before > 2 * after for before, after in pairwise(sizes))
    base.verify()
    new = KnowledgeBase.build(files, tmp_path / "new", encoder=tiny_encoder)
    assert base.sources() == new.sources()
    assert (base.manifest.passages, base.manifest.documents) == (
        new.manifest.passages,
        new.manifest.documents,
    )
    assert content(base.compact()) == content(new)


def test_older_versions_stay_as_they_were(grown, tiny_encoder, tmp_path):
    base, _ = grown
    names = base.version_names()
    before = {name: content(KnowledgeBase.open(base.path, version=name)) for name in names}
    base = base.add([write(tmp_path, 99, "number 99")], encoder=tiny_encoder)
    assert {name: content(KnowledgeBase.open(base.path, version=name)) for name in names} == before
    assert content(base.swap(names[3])) == before[names[3]]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_an_open_knowledge_base_keeps_no_file_open(grown):
    base, _ = grown
    before = descriptors()
    opened = [KnowledgeBase.open(base.path, version=name) for name in base.version_names()]
    assert [len(content(one)) for one in opened]
    assert descriptors() == before


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_new_version_shares_the_open_segments(tmp_path, tiny_encoder):
    def mappings() -> int:
        gc.collect()
        return Path("/proc/self/maps").read_text().count(f"{tmp_path}/kb/segments/000001/")

    first = write(tmp_path, 0, *TEXTS, *(f"number {number}" for number in range(9)))
    base = KnowledgeBase.build([first], tmp_path / "kb", encoder=tiny_encoder, index="hnsw")
    mapped, before = mappings(), content(base)
    versions = [base.delete(ids=["0-1", "0-5"])]
    versions.append(versions[0].add([write(tmp_path, 1, TEXTS[1], "number 99")], encoder=tiny_encoder))
    assert mappings() == mapped > 0
    assert content(base) == before
    for version in versions:
        assert content(version) == content(KnowledgeBase.open(base.path, version=version.version))


@contextmanager
def full_table(left: int) -> Iterator[None]:
    """Take all descriptors but a few."""
    files: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    try:
        with suppress(OSError):
            while True:
                files.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(left):
            os.close(files.pop())
        yield
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("kind", ["open", "delete", "compact", "add"])
def test_a_full_table_of_descriptors_is_named_and_harms_nothing(grown, tiny_encoder, tmp_path, kind):
    base, _ = grown
    before, new = content(base), write(tmp_path, 99, "number 99")
    change = {
        "open": lambda: KnowledgeBase.open(base.path),
        "delete": lambda: base.delete(ids=["0-0"]),
        "compact": lambda: base.compact(keep=0),
        "add": lambda: base.add([new], encoder=tiny_encoder),
    }[kind]
    for left in range(30):
        try:
            with full_table(left):
                change()
        except OpenFilesError as error:
            assert "ulimit -n" in str(error)
        else:
            break
        current = KnowledgeBase.open(base.path)
        current.verify()
        assert content(current) == before
    assert 0 < left < 29
    KnowledgeBase.open(base.path).verify()
