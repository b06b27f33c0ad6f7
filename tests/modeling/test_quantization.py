"""Weights of 8 bits give nearly the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ragweave.errors import ConfigurationError
from ragweave.modeling.quantization import quantize_int8
from tests.support import models
from tests.support.models import FORMULATIONS, rag_model

pytestmark = [
    pytest.mark.usefixtures("quiet_transformers"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
]
QUANTISED = torch.ao.nn.quantized.dynamic.Linear


@pytest.mark.parametrize("generator", ["bart", "t5", "gated_t5", "llama", "qwen3"])
@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_quantised_models_score_and_answer(formulation: str, generator: str) -> None:
    model, inputs = rag_model(models.CLASSES[formulation], generator), models.contexts()
    labels = models.words(2, 4)
    with torch.no_grad():
        exact = model(**inputs, labels=labels).loss
        quantize_int8(model.generator)
        quantised = model(**inputs, labels=labels).loss
    assert not torch.equal(quantised, exact)
    assert torch.allclose(quantised, exact, rtol=0.1)
    assert model.generate(**inputs, num_beams=2, max_new_tokens=4).shape[0] == 2


def test_sensitive_layers_stay_in_float32() -> None:
    model = rag_model(models.CLASSES["token"], "llama").to(torch.bfloat16)
    quantize_int8(model.generator)
    kinds = {name.rpartition(".")[2]: type(layer) for name, layer in model.generator.named_modules()}
    assert kinds["q_proj"] is kinds["up_proj"] is QUANTISED
    assert kinds["down_proj"] is kinds["lm_head"] is torch.nn.Linear
    assert model.generator.lm_head.weight.dtype == torch.float32
    assert not any(isinstance(layer, QUANTISED) for layer in model.question_encoder.modules())


def test_other_devices_are_refused() -> None:
    model: Any = rag_model(models.CLASSES["token"]).generator.to("meta")
    with pytest.raises(ConfigurationError, match="'int8' is for CPUs, and the generator is on meta"):
        quantize_int8(model)
