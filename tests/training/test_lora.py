"""Low-rank adapters: put beside linear layers of either kind, trained, and merged without a trace."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ragweave.errors import ConfigurationError
from ragweave.training.lora import add_adapter, merge_adapter
from tests.support import models

pytestmark = pytest.mark.usefixtures("quiet_transformers")


def causal_model(kind: str) -> Any:
    model = tf.AutoModelForCausalLM.from_config(models.generator_config(kind)).eval()
    models.randomise(model, 0, std=0.2)
    return model


def weights(model: Any) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])  # Conv1D, and Linear
def test_an_adapter_learns_and_merging_keeps_its_logits(kind: str) -> None:
    model = causal_model(kind)
    before = weights(model)
    n_layers = sum(isinstance(layer, nn.Linear | Conv1D) for layer in model.modules()) - 1  # but the head
    tokens = models.words(3, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # peft tells of a setting that does not fit a layer
        add_adapter(model, rank=4)
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    assert len(learning) == 2 * n_layers
    optimizer = torch.optim.SGD(learning, lr=1.0)
    untrained = model(tokens).logits.detach()
    model(tokens, labels=tokens).loss.backward()
    optimizer.step()
    adapted = model(tokens).logits.detach()
    assert (adapted - untrained).abs().max() > 0.01
    merge_adapter(model)
    after = weights(model)
    assert after.keys() == before.keys()
    assert all(weight.requires_grad for weight in model.parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == n_layers
    assert all(after[name].shape == before[name].shape for name in changed)
    assert torch.allclose(model(tokens).logits, adapted, atol=1e-4)


def test_a_generator_without_linear_layers_is_named() -> None:
    model = tf.GPT2LMHeadModel(models.generator_config("gpt2", n_layer=0))
    with pytest.raises(ConfigurationError, match="GPT2LMHeadModel has no linear layers"):
        add_adapter(model)
