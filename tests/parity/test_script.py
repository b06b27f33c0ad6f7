"""A user's script runs as it is, but for the line that imports: the numbers and the answers of transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.parity.test_released import write_released
from tests.support import models, retrieval

SCRIPT = Path(__file__).parent / "scripts" / "rag_script.py"
NUMBERS = ("loss", "doc_scores", "logits", "training")


def flat(value: Any) -> list[float]:
    return [number for item in value for number in flat(item)] if isinstance(value, list) else [value]


def run(library: str, formulation: str, checkpoint: Path, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    text = SCRIPT.read_text()
    assert text.count("from transformers import") == 1
    script = folder / "script.py"
    script.write_text(text.replace("from transformers import", f"from {library} import"))
    passages = folder / "passages.jsonl"
    rows = retrieval.dataset(factory=None).select_columns(["title", "text", "embeddings"])
    passages.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, script, formulation, checkpoint, passages, folder]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("formulation", models.FORMULATIONS)
def test_only_the_import_changes(formulation: str, tmp_path: Path) -> None:
    checkpoint = write_released(tmp_path / "released", formulation, "model.safetensors")
    theirs, ours = (
        run(library, formulation, checkpoint, tmp_path / library) for library in ("transformers", "ragweave")
    )
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        if name in NUMBERS:
            assert flat(ours[name]) == pytest.approx(flat(expected), abs=1e-5, rel=1e-5), name
        else:
            assert ours[name] == expected, name
    assert ours["training"] == sorted(ours["training"], reverse=True)
