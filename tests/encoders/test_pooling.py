"""Pooling: each reduction, its messages for encoders that cannot do it, and gradients."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling
from transformers.models.dpr.modeling_dpr import DPRQuestionEncoderOutput

from ragweave.encoders.pooling import pool
from ragweave.errors import ConfigurationError

STATES = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)  # (B, S, D)
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


def test_cls_takes_the_first_token():
    outputs = BaseModelOutput(last_hidden_state=STATES)
    assert torch.equal(pool(outputs, MASK, "cls", False), STATES[:, 0])


def test_mean_leaves_padding_out():
    outputs = BaseModelOutput(last_hidden_state=STATES)
    expected = torch.stack([STATES[0, :2].mean(0), STATES[1].mean(0)])
    assert torch.allclose(pool(outputs, MASK, "mean", False), expected)


def test_mean_of_nothing_is_zero_not_nan():
    outputs = BaseModelOutput(last_hidden_state=STATES)
    vectors = pool(outputs, torch.tensor([[0, 0, 0], [1, 0, 0]]), "mean", True)
    assert torch.equal(vectors[0], torch.zeros(4))
    assert torch.isfinite(vectors).all()


def test_pooler_takes_the_models_own_vector():
    outputs = BaseModelOutputWithPooling(last_hidden_state=STATES, pooler_output=STATES[:, 2])
    assert torch.equal(pool(outputs, MASK, "pooler", False), STATES[:, 2])


@pytest.mark.parametrize("outputs", [DPRQuestionEncoderOutput(pooler_output=STATES[:, 1]), (STATES[:, 1],)])
def test_pooler_takes_dpr(outputs):
    assert torch.equal(pool(outputs, MASK, "pooler", False), STATES[:, 1])


def test_pooler_without_one_says_what_to_set():
    with pytest.raises(ConfigurationError, match="'cls' or 'mean'"):
        pool(BaseModelOutput(last_hidden_state=STATES), MASK, "pooler", False)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_token_pooling_of_dpr_says_what_to_set(pooling):
    with pytest.raises(ConfigurationError, match="'pooler'"):
        pool(DPRQuestionEncoderOutput(pooler_output=STATES[:, 1]), MASK, pooling, False)


def test_unknown_pooling():
    with pytest.raises(ConfigurationError, match="pooler, cls, mean"):
        pool(BaseModelOutput(last_hidden_state=STATES), MASK, "max", False)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_normalized_vectors_have_length_one(pooling):
    vectors = pool(BaseModelOutput(last_hidden_state=STATES + 1), MASK, pooling, True)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(2))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("normalize", [True, False])
def test_gradients_are_right(pooling, normalize):
    states = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda value: pool(BaseModelOutput(last_hidden_state=value), MASK, pooling, normalize), (states,)
    )


def test_half_precision_is_pooled_in_float32_also_under_autocast():
    states = torch.randn(2, 3, 64)
    exact = pool(BaseModelOutput(last_hidden_state=states.bfloat16().float()), MASK, "mean", True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = pool(BaseModelOutput(last_hidden_state=states.bfloat16()), MASK, "mean", True)
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors, exact)
