"""A folder saved by either library loads in the other, with equal logits and losses."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

import ragweave
from tests.parity.oracle import ORACLES, Case, pair
from tests.support import models

pytestmark = pytest.mark.usefixtures("quiet_transformers")

MODELS = pytest.mark.parametrize(
    ("formulation", "generator"), [(f, g) for f in ("token", "sequence") for g in ("bart", "t5")]
)


def outputs(model: Any, case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        output = model(**case.arguments, labels=case.labels, n_docs=case.n_docs)
    return output.logits, output.loss


@MODELS
def test_a_folder_of_transformers_loads_here(formulation: str, generator: str, tmp_path: Path) -> None:
    theirs, _ = pair(formulation, generator, 0)
    theirs.save_pretrained(tmp_path)
    loaded = models.CLASSES[formulation].from_pretrained(tmp_path)
    case = Case(generator, 1)
    for expected, got in zip(outputs(theirs, case), outputs(loaded, case), strict=True):
        assert torch.allclose(got, expected, atol=1e-4)


@MODELS
def test_a_folder_of_ours_loads_in_transformers(formulation: str, generator: str, tmp_path: Path) -> None:
    _, ours = pair(formulation, generator, 0)
    ours.save_pretrained(tmp_path)
    loaded = ORACLES[formulation].from_pretrained(tmp_path)
    case = Case(generator, 1)
    for expected, got in zip(outputs(ours, case), outputs(loaded, case), strict=True):
        assert torch.allclose(got, expected, atol=1e-4)


def test_configurations_are_exchanged(tmp_path: Path) -> None:
    parts = (models.question_encoder_config(), models.generator_config("bart"))
    fields: dict[str, Any] = {
        "n_docs": 7,
        "title_sep": " | ",
        "doc_sep": " ~ ",
        "prefix": "p: ",
        "max_combined_length": 99,
        "index_name": "custom",
        "label_smoothing": 0.25,
        "do_deduplication": False,
        "use_dummy_dataset": True,
        "retrieval_vector_size": 16,
    }
    for source, target in ((tf.RagConfig, ragweave.RagConfig), (ragweave.RagConfig, tf.RagConfig)):
        saved = source.from_question_encoder_generator_configs(*parts, **fields)
        saved.save_pretrained(tmp_path / source.__module__)
        loaded = target.from_pretrained(tmp_path / source.__module__)
        assert {name: getattr(loaded, name) for name in fields} == fields
        assert loaded.generator.to_dict() == saved.generator.to_dict()
        assert loaded.question_encoder.to_dict() == saved.question_encoder.to_dict()


def test_defaults_are_those_of_transformers() -> None:
    theirs, ours = (
        # transformers before 5.20 needs the two parts, as dictionaries.
        lib.RagConfig(
            question_encoder=tf.DPRConfig().to_dict(), generator=tf.BartConfig().to_dict()
        ).to_dict()
        for lib in (tf, ragweave)
    )
    entries = re.split(r"^ {4}(?=\w+: )", inspect.getdoc(ragweave.RagConfig) or "", flags=re.MULTILINE)
    added = {entry.partition(":")[0] for entry in entries if "(ragweave only)" in " ".join(entry.split())}
    assert {name: ours[name] for name in theirs} == theirs
    assert set(ours) - set(theirs) - {"forced_eos_token_id"} == added


def test_saved_files_are_the_same(tmp_path: Path) -> None:
    for model, name in zip(pair("token", "bart", 0), ("theirs", "ours"), strict=True):
        model.save_pretrained(tmp_path / name)
    theirs, ours = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("theirs", "ours"))
    assert theirs["model_type"] == ours["model_type"] == "rag"
    assert theirs["architectures"] == ours["architectures"]
    assert (tmp_path / "ours" / "model.safetensors").exists()
