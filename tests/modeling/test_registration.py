"""transformers' Auto classes after `register_auto_classes`, in a process of its own: it changes them for good."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ragweave import RagTokenizer
from tests.support import models, retrieval

pytestmark = pytest.mark.usefixtures("quiet_transformers")

SCRIPT = """
import sys
import transformers
{call}
for auto in ("AutoConfig", "AutoTokenizer", "AutoModel", "AutoModelForSeq2SeqLM"):
    try:
        found = type(getattr(transformers, auto).from_pretrained(sys.argv[1]))
        print(auto, found.__module__.split(".")[0], found.__name__)
    except ValueError:
        print(auto, "refuses")
"""
CALL = "import ragweave; [ragweave.register_auto_classes() for _ in range(2)]"


def run(folder: Path, call: str) -> list[str]:
    command = [sys.executable, "-c", SCRIPT.format(call=call), str(folder)]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return result.stdout.splitlines()


@pytest.mark.parametrize("formulation", models.FORMULATIONS)
def test_auto_classes_open_a_folder(formulation: str, tmp_path: Path) -> None:
    cls = models.CLASSES[formulation]
    models.rag_model(cls).save_pretrained(tmp_path)
    RagTokenizer(retrieval.question_tokenizer(), retrieval.generator_tokenizer()).save_pretrained(tmp_path)
    assert run(tmp_path, CALL) == [
        "AutoConfig ragweave RagConfig",
        "AutoTokenizer ragweave RagTokenizer",
        "AutoModel ragweave RagModel",
        f"AutoModelForSeq2SeqLM ragweave {cls.__name__}",
    ]


def test_importing_registers_nothing(tmp_path: Path) -> None:
    models.rag_config().save_pretrained(tmp_path)
    call = "import ragweave, ragweave.modeling.registration; ragweave.RagTokenForGeneration"
    assert run(tmp_path, call)[0] == "AutoConfig transformers RagConfig"
