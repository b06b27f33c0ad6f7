"""A user's script runs as it is, but for the line that imports: the numbers and the answers of transformers."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
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


def commands(library: str, checkpoints: dict[str, Path], folder: Path) -> list[list[str]]:
    """A script that imports from a library, and its arguments for each checkpoint."""
    text = SCRIPT.read_text()
    assert text.count("from transformers import") == 1
    script, passages = folder / f"{library}.py", folder / "passages.jsonl"
    script.write_text(text.replace("from transformers import", f"from {library} import"))
    rows = retrieval.dataset(factory=None).select_columns(["title", "text", "embeddings"])
    passages.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for formulation, checkpoint in checkpoints.items():
        output = folder / library / formulation
        output.mkdir(parents=True)
        found.append([str(own) for own in (script, formulation, checkpoint, passages, output)])
    return found


def run_here(command: list[str]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        runpy.run_path(command[0])
    return output.getvalue().splitlines()[-1]


RUN_EACH = """
import json, runpy, sys
for command in json.loads(sys.argv[1]):
    sys.argv = command
    runpy.run_path(command[0])
"""


def test_only_the_import_changes(tmp_path: Path, quiet_transformers: None) -> None:
    checkpoints = {
        formulation: write_released(tmp_path / f"released-{formulation}", formulation, "model.safetensors")
        for formulation in models.FORMULATIONS
    }
    theirs = [run_here(command) for command in commands("transformers", checkpoints, tmp_path)]
    # Ours needs a process that nothing else has been imported into.
    program = [sys.executable, "-c", RUN_EACH, json.dumps(commands("ragweave", checkpoints, tmp_path))]
    result = subprocess.run(program, check=False, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    ours = [line for line in result.stdout.splitlines() if line.startswith("{")]
    assert len(ours) == len(theirs) == 2
    for own, other in zip(map(json.loads, ours), map(json.loads, theirs), strict=True):
        assert own.keys() == other.keys()
        for name, expected in other.items():
            if name in NUMBERS:
                assert flat(own[name]) == pytest.approx(flat(expected), abs=1e-5, rel=1e-5), name
            else:
                assert own[name] == expected, name
        assert own["training"] == sorted(own["training"], reverse=True)
