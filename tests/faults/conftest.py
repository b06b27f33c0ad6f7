"""A knowledge base that faults happen to, and what may be done to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from ragweave.knowledge.base import KnowledgeBase

MEMORY = "/dev/shm"  # noqa: S108 - only fixtures write there
CHANGES: dict[str, Callable[[Path, Any], object]] = {
    "build": lambda folder, encoder: KnowledgeBase.build([folder / "notes"], folder / "new", encoder=encoder),
    "overwrite": lambda folder, encoder: KnowledgeBase.build(
        [folder / "notes"], folder / "kb", encoder=encoder, overwrite=True, index="hnsw"
    ),
    "add": lambda folder, encoder: KnowledgeBase.open(folder / "kb").add([folder / "notes"], encoder=encoder),
    "delete": lambda folder, _: KnowledgeBase.open(folder / "kb").delete(ids=["peru.txt"]),
    "compact": lambda folder, _: KnowledgeBase.open(folder / "kb").compact(keep=0),
    "swap": lambda folder, _: KnowledgeBase.open(folder / "kb").swap("000001"),
}


def content(path: Path) -> list[str]:
    """What a knowledge base holds, after every byte of it was checked and everything was searched for."""
    base = KnowledgeBase.open(path)
    base.verify()
    _, rows = base.search(np.ones((1, 16), dtype=np.float32), len(base) + 1)
    found = [row for row in rows[0].tolist() if row >= 0]
    assert len(found) == len(base)
    return sorted(base.passage(row).text for row in found)


@pytest.fixture(scope="session")
def memory() -> Iterator[str]:
    """A folder in memory, where the system has one: it is made and removed thousands of times."""
    with TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as name:
        yield name


@pytest.fixture(scope="session")
def lived(memory, tiny_encoder) -> Path:
    """A folder with a knowledge base of two segments and a deleted passage, and notes that have changed since."""
    folder = Path(memory) / "lived"
    notes = folder / "notes"
    notes.mkdir(parents=True)
    for name, text in (
        ("peru", "Lima is the capital."),
        ("ulm", "Ulm is on the danube."),
        ("river", "A river."),
    ):
        (notes / f"{name}.txt").write_text(text)
    base = KnowledgeBase.build([notes], folder / "kb", encoder=tiny_encoder)
    (notes / "ulm.txt").write_text("Ulm lies in the south.")
    base.add([notes], encoder=tiny_encoder)
    (notes / "river.txt").write_text("A long river.")
    (notes / "new.txt").write_text("A new text.")
    shutil.copytree(folder / "kb", folder.with_suffix(".kept"))
    return folder


@pytest.fixture
def folder(lived) -> Callable[[], Path]:
    """Puts everything back to how it was, in the same place, since sources are known by their paths."""

    def fresh() -> Path:
        for path in lived.iterdir():
            if path.name != "notes":
                shutil.rmtree(path)
        shutil.copytree(lived.with_suffix(".kept"), lived / "kb")
        return lived

    return fresh
