"""The Python examples of docs/tensorflow.md run in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tensorflow.md"
BLOCK = re.compile(r"<!-- not run: needs TensorFlow; .+? -->\n+```python\n(?P<code>.*?)^```", re.M | re.S)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = [match["code"] for match in BLOCK.finditer(PAGE.read_text("utf-8"))]
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)  # noqa: S102  # the project's own page
    assert (tmp_path / "rag-of-keras" / "model.safetensors").is_file()
