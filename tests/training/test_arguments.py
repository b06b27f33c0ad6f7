"""Invalid training arguments are rejected, and one process uses one device."""

from __future__ import annotations

import pytest
from transformers import TrainingArguments

from ragweave.errors import ConfigurationError
from tests.support.training import arguments


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        ({"freeze": "everything"}, "freeze is 'everything'; choose one of"),
        ({"n_docs": 0}, "n_docs is 0; it must be 1 or more"),
        ({"retriever_loss": "hinge"}, "retriever_loss is 'hinge'; choose one of"),
        ({"refresh_engine": "spark"}, "refresh_engine is 'spark'; choose one of"),
        ({"refresh_steps": 0, "end_to_end": True}, "refresh_steps is 0; it must be 1 or more"),
        ({"retrieve_ahead": True}, "retrieve_ahead .* needs freeze='question-encoder'"),
        (
            {"retrieve_ahead": True, "freeze": "question-encoder", "end_to_end": True},
            "retrieve_ahead .* no end_to_end",
        ),
    ],
    ids=str,
)
def test_invalid_arguments_are_rejected(tmp_path, invalid, message):
    with pytest.raises(ConfigurationError, match=message):
        arguments(tmp_path, **invalid)


def test_one_process_uses_one_device(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 3))
    assert arguments(tmp_path).n_gpu == 1
