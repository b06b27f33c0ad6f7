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


def run(library: str, formulation: str, checkpoint: Path, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    text = SCRIPT.read_text()
    assert text.count("from transformers import") == 1
    script = folder / "script.py"
    script.write_text(text.replace("from transformers import", f"from {library} import"))
    passages = folder / "passages.jsonl"
    rows = retrieval.dataset(factory=None).select_columns(["title", "text", "embeddings"])
    passages.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [str(own) for own in (script, formulation, checkpoint, passages, folder)]
    # Ours alone needs a process that nothing else has been imported into.
    output = run_here(command) if library == "transformers" else run_in_process(command)
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def run_here(command: list[str]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        runpy.run_path(command[0])
    return output.getvalue()


def run_in_process(command: list[str]) -> str:
    result = subprocess.run(
        [sys.executable, *command], check=False, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("formulation", models.FORMULATIONS)
def test_only_the_import_changes(formulation: str, tmp_path: Path, quiet_transformers: None) -> None:
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
