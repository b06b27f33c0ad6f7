"""Outputs behave as transformers' do: by name, by key, by position, without fields that are None."""

from __future__ import annotations

import pickle

import pytest
import torch
import transformers as tf

from ragweave import RagSequenceGenerateOutput, RetrievAugLMMarginOutput, RetrievAugLMOutput

OUTPUTS = (RetrievAugLMOutput, RetrievAugLMMarginOutput, RagSequenceGenerateOutput)


@pytest.mark.parametrize("cls", OUTPUTS)
def test_what_is_not_there_is_none_and_no_key(cls: type) -> None:
    name = next(iter(cls.__dataclass_fields__))
    output = cls(**{name: torch.ones(2)})
    assert list(output.keys()) == [name]
    assert torch.equal(output[name], output[0])
    assert len(output.to_tuple()) == 1
    assert all(getattr(output, other) is None for other in cls.__dataclass_fields__ if other != name)


def test_the_loss_comes_first() -> None:
    output = RetrievAugLMMarginOutput(logits=torch.zeros(1), doc_scores=torch.zeros(2), loss=torch.ones(()))
    assert list(output.keys()) == ["loss", "logits", "doc_scores"]
    assert output.to_tuple()[0] == 1
    without = RetrievAugLMMarginOutput(logits=torch.zeros(1))
    assert without.loss is None
    assert list(without.keys()) == ["logits"]


@pytest.mark.parametrize("name", ["RetrievAugLMOutput", "RetrievAugLMMarginOutput"])
def test_fields_are_those_of_transformers(name: str) -> None:
    theirs = getattr(tf.models.rag.modeling_rag, name)
    ours = {"RetrievAugLMOutput": RetrievAugLMOutput, "RetrievAugLMMarginOutput": RetrievAugLMMarginOutput}
    assert set(theirs.__dataclass_fields__) <= set(ours[name].__dataclass_fields__)


@pytest.mark.parametrize("cls", OUTPUTS)
def test_outputs_survive_pickling(cls: type) -> None:
    """Data-parallel training sends them between processes."""
    name = next(iter(cls.__dataclass_fields__))
    again = pickle.loads(pickle.dumps(cls(**{name: torch.ones(2)})))
    assert isinstance(again, cls)
    assert torch.equal(again[name], torch.ones(2))


def test_fields_can_be_set_later() -> None:
    output = RetrievAugLMOutput(logits=torch.zeros(1))
    output.doc_scores = torch.ones(1, 2)
    assert torch.equal(output["doc_scores"], torch.ones(1, 2))
