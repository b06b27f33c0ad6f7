"""transformers' Auto classes after `register_auto_classes`, in a process of its own, because it cannot be undone."""

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
import ragweave, ragweave.modeling.registration, transformers


def show(auto, folder):
    found = type(getattr(transformers, auto).from_pretrained(folder))
    print(auto, found.__module__.split(".")[0], found.__name__)


ragweave.RagTokenForGeneration
show("AutoConfig", sys.argv[1])
for _ in range(2):
    ragweave.register_auto_classes()
for folder in sys.argv[1:]:
    for auto in ("AutoConfig", "AutoTokenizer", "AutoModel", "AutoModelForSeq2SeqLM"):
        show(auto, folder)
"""


def test_auto_classes_open_a_folder(tmp_path: Path) -> None:
    for formulation in models.FORMULATIONS:
        folder = tmp_path / formulation
        models.rag_model(models.CLASSES[formulation]).save_pretrained(folder)
        RagTokenizer(retrieval.question_tokenizer(), retrieval.generator_tokenizer()).save_pretrained(folder)
    folders = [str(tmp_path / formulation) for formulation in models.FORMULATIONS]
    command = [sys.executable, "-c", SCRIPT, *folders]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr
    before, *after = result.stdout.splitlines()
    assert before == "AutoConfig transformers RagConfig"  # importing registers nothing
    assert after == [
        line
        for formulation in models.FORMULATIONS
        for line in (
            "AutoConfig ragweave RagConfig",
            "AutoTokenizer ragweave RagTokenizer",
            "AutoModel ragweave RagModel",
            f"AutoModelForSeq2SeqLM ragweave {models.CLASSES[formulation].__name__}",
        )
    ]
