"""Invalid training arguments are rejected, and one process uses one device."""

from __future__ import annotations

import pytest
from transformers import TrainingArguments

from ragweave.errors import ConfigurationError
from tests.support.training import arguments


@pytest.mark.parametrize(
    "invalid",
    [
        {"freeze": "everything"},
        {"n_docs": 0},
        {"retriever_loss": "hinge"},
        {"refresh_engine": "spark"},
        {"refresh_steps": 0},
        {"retrieve_ahead": True},
        {"retrieve_ahead": True, "freeze": "question-encoder", "end_to_end": True},
    ],
    ids=str,
)
def test_invalid_arguments_are_rejected(tmp_path, invalid):
    with pytest.raises(ConfigurationError):
        arguments(tmp_path, **invalid)


def test_one_process_uses_one_device(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 3))
    assert arguments(tmp_path).n_gpu == 1
