"""Sources and knowledge bases of the tests in this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest_settings import Chunking
from tests.support.words_encoder import WordsEncoder


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of documents: one long enough for several passages, one short, one empty."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "peru.md").write_text(
        "# Peru\n\n" + "".join(f"Lima is the capital of peru. The river {n} is in peru. " for n in range(6))
    )
    (folder / "ulm.txt").write_text("Ulm lies on the Danube.")
    (folder / "empty.txt").write_text("\n")
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory, sources, tiny_encoder) -> KnowledgeBase:
    """A knowledge base that no test changes."""
    output = tmp_path_factory.mktemp("bases") / "kb"
    return KnowledgeBase.build([sources], output, encoder=tiny_encoder, chunking=Chunking(words=20))


@pytest.fixture(scope="session")
def encoder() -> WordsEncoder:
    """An encoder that needs no torch."""
    return WordsEncoder()


@pytest.fixture
def notes(tmp_path) -> Path:
    """A folder of three short documents, which a test may change."""
    folder = tmp_path / "notes"
    (folder / "old").mkdir(parents=True)
    (folder / "peru.txt").write_text("Lima is the capital of peru.")
    (folder / "ulm.txt").write_text("Ulm is on the danube.")
    (folder / "old" / "river.txt").write_text("The river is a river.")
    return folder
