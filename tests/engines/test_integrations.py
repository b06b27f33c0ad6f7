"""The retrievers of docs/integrations.md, run with the real libraries; `make test-engines` installs them."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from ragweave import KnowledgeBase
from tests.support.pipelines import build_knowledge_base

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("RAGWEAVE_ENGINES_PYTHON", "")
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "integrations.md").read_text("utf-8"), re.M | re.S
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="needs LangChain and LlamaIndex: run make test-engines"),
]


@pytest.mark.parametrize("block", BLOCKS, ids=["langchain", "llamaindex"])
def test_retrievers_find_what_the_knowledge_base_finds(block: str, tmp_path: Path, tiny_encoder_path: Path):
    path = build_knowledge_base(tmp_path, tiny_encoder_path, named=False)
    # Their environment has the libraries, and this one ragweave with what it needs.
    packages = os.pathsep.join([str(ROOT / "src"), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": packages}
    done = subprocess.run(
        [PYTHON, "-c", block], cwd=path.parent, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    passages = KnowledgeBase.open(path).search("What is the capital of Peru?", 5)
    printed = [line.split() for line in done.stdout.splitlines()]
    assert [title for title, _ in printed] == [passage.title for passage in passages]
    assert [float(value) for _, value in printed] == pytest.approx([passage.prior for passage in passages])
