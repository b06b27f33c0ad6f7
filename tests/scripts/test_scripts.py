"""Scripts that call transformers' RAG classes in common ways give the same results with ragweave.

A scenario is a module whose ``main(lib, folder)`` takes the RAG classes from ``lib``, one of the two libraries.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.models.auto import tokenization_auto

import ragweave
from tests.scripts import scenarios

pytestmark = [
    pytest.mark.usefixtures("quiet_transformers"),
    pytest.mark.filterwarnings(r"ignore:forward\(\) ignores unknown argument"),
]

SCENARIOS = sorted(path.stem for path in Path(scenarios.__path__[0]).glob("[a-z]*.py"))

# Results that transformers gets wrong. The result of ragweave equals another result of transformers instead.
CORRECTED = {
    "auto_classes": {  # no AutoModel of transformers loads RAG
        f"{order}, {name} of {auto}": f"{order}, {name}"
        for order in ("model first", "retriever first")
        for name, auto in (("scores", "AutoModel"), ("class", "AutoModelForSeq2SeqLM"))
    },
    # text_target: transformers uses the vocabulary of the question encoder.
    "docs_forward": {"labels as documented": "labels"},
    "outputs": {  # transformers does not forward output_hidden_states
        f"{name} hidden states": f"{name} hidden states of the generator" for name in ("token", "sequence")
    },
    # Model cards and scripts call prepare_seq2seq_batch and pad_token_id, which transformers 5 has not.
    "pipeline_class": {"input_ids of the cards": "input_ids"},
    "tokenizer_use": {"pad": "pad of the generator"},
    # transformers fails. ragweave returns the loss per token, as other models do under Trainer.
    "trainer": {"default": "per token"},
}


@pytest.fixture(autouse=True)
def auto_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo `register_auto_classes` after each test."""
    for mapping in (
        transformers.CONFIG_MAPPING,
        transformers.MODEL_MAPPING,
        transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        transformers.TOKENIZER_MAPPING,
    ):
        monkeypatch.setattr(mapping, "_extra_content", dict(mapping._extra_content))
    registered = dict(tokenization_auto.REGISTERED_TOKENIZER_CLASSES)
    monkeypatch.setattr(tokenization_auto, "REGISTERED_TOKENIZER_CLASSES", registered)


def run(scenario: str, library: str, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    torch.manual_seed(0)
    if library == "ragweave" and scenario == "auto_classes":
        ragweave.register_auto_classes()  # the only other line that a script has to add
    with pytest.MonkeyPatch.context() as patch:
        if library == "transformers":
            keep_masks(patch)
        script = import_module(f"{scenarios.__name__}.{scenario}")
        results: dict[str, Any] = script.main(import_module(library), folder)
    return results


def keep_masks(patch: pytest.MonkeyPatch) -> None:
    """Repair RAG-Sequence's ``generate``, which drops the mask of the contexts, so that padding changes answers."""
    generate = transformers.BartForConditionalGeneration.generate

    def generate_with_mask(self: Any, inputs: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        if attention_mask is None:
            attention_mask = inputs.ne(self.config.pad_token_id).long()
        return generate(self, inputs, attention_mask=attention_mask, **kwargs)

    patch.setattr(transformers.BartForConditionalGeneration, "generate", generate_with_mask)


def assert_alike(ours: Any, theirs: Any, path: str) -> None:
    """Check that floats agree to 1e-5 and that everything else, such as tokens and shapes, is equal."""
    if isinstance(theirs, Mapping):
        assert ours.keys() == theirs.keys(), path
        for name, expected in theirs.items():
            assert_alike(ours[name], expected, f"{path}/{name}")
    elif isinstance(theirs, list | tuple):
        assert isinstance(ours, list | tuple), path
        assert len(ours) == len(theirs), path
        for position, (mine, expected) in enumerate(zip(ours, theirs, strict=True)):
            assert_alike(mine, expected, f"{path}[{position}]")
    elif isinstance(theirs, float | np.ndarray | torch.Tensor):
        assert not isinstance(ours, str | None), path
        mine, expected = (np.asarray(torch.as_tensor(value).detach()) for value in (ours, theirs))
        assert mine.shape == expected.shape, path
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5, err_msg=path)
        else:
            np.testing.assert_array_equal(mine, expected, err_msg=path)
    else:
        assert ours == theirs, path


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_only_the_import_changes(scenario: str, tmp_path: Path) -> None:
    theirs, ours = (run(scenario, library, tmp_path / library) for library in ("transformers", "ragweave"))
    assert ours.keys() == theirs.keys()
    for name, source in CORRECTED.get(scenario, {}).items():
        theirs[name] = theirs[source]
    for name, expected in theirs.items():
        assert_alike(ours[name], expected, name)


def test_corrections_name_scenarios() -> None:
    assert set(CORRECTED) <= set(SCENARIOS)
