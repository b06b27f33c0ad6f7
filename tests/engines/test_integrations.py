"""The code of docs/integrations.md, run with the real libraries; `make test-engines` installs them."""

from __future__ import annotations

import ast
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


def printed_by(code: str, folder: Path) -> list[str]:
    """The lines that code prints which runs with the libraries' environment, and with this one's packages."""
    packages = os.pathsep.join([str(ROOT / "src"), str(ROOT), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": packages}
    done = subprocess.run(
        [PYTHON, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("block", BLOCKS[:2], ids=["langchain", "llamaindex"])
def test_retrievers_find_what_the_knowledge_base_finds(block: str, tmp_path: Path, tiny_encoder_path: Path):
    path = build_knowledge_base(tmp_path, tiny_encoder_path, named=False)
    lines = printed_by(block, path.parent)
    passages = KnowledgeBase.open(path).search("What is the capital of Peru?", 5)
    printed = [line.split() for line in lines]
    assert [title for title, _ in printed] == [passage.title for passage in passages]
    assert [float(value) for _, value in printed] == pytest.approx([passage.prior for passage in passages])


def test_a_model_searches_while_trl_trains_it(tmp_path: Path, tiny_encoder_path: Path):
    path = build_knowledge_base(tmp_path, tiny_encoder_path, named=False)
    before, name, after = BLOCKS[2].partition('trainer = GRPOTrainer("Qwen/Qwen3-1.7B"')
    assert name
    tiny = (
        "from tests.engines.tool_caller import save_tool_caller\nsave_tool_caller('tiny', question, search)\n"
    )
    before = before.replace(
        "max_completion_length=512", "max_completion_length=512, use_cpu=True, bf16=False"
    )
    lines = printed_by(f"{before}{tiny}trainer = GRPOTrainer('tiny'{after}", path.parent)
    logs = ast.literal_eval(lines[-1])
    assert (float(logs["tools/call_frequency"]), float(logs["tools/failure_frequency"])) == (1.0, 0.0)
    assert float(logs["rewards/answered/mean"]) == 1.0
