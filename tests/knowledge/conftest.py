from pathlib import Path

import pytest

from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.chunking_settings import Chunking


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
