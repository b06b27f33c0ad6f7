"""transformers' Auto classes after `register_auto_classes`, in a process of its own, because it cannot be undone."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

import ragweave
from ragweave import RagTokenizer
from tests.support import models, retrieval
from tests.support.processes import CONTEXT
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("quiet_transformers")

AUTO = ("AutoConfig", "AutoTokenizer", "AutoModel", "AutoModelForSeq2SeqLM")


def classes(folders: list[Path], output: Path) -> None:
    """Write what the Auto classes make of the first folder before the registration, and of all after it."""

    def opened(auto: str, folder: Path) -> str:
        cls = type(getattr(transformers, auto).from_pretrained(folder))
        return f"{auto} {cls.__module__.split('.')[0]} {cls.__name__}\n"

    lines = [opened("AutoConfig", folders[0])]
    for _ in range(2):
        ragweave.register_auto_classes()
    lines += [opened(auto, folder) for folder in folders for auto in AUTO]
    output.write_text("".join(lines), encoding="utf-8")


def test_auto_classes_open_a_folder(tmp_path: Path) -> None:
    folders = [tmp_path / formulation for formulation in models.FORMULATIONS]
    for formulation, folder in zip(models.FORMULATIONS, folders, strict=True):
        models.rag_model(models.CLASSES[formulation]).save_pretrained(folder)
        RagTokenizer(retrieval.question_tokenizer(), retrieval.generator_tokenizer()).save_pretrained(folder)
    process = CONTEXT.Process(target=classes, args=(folders, tmp_path / "classes.txt"))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0
    before, *after = (tmp_path / "classes.txt").read_text("utf-8").splitlines()
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
