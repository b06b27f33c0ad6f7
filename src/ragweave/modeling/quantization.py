"""Linear layers with weights of 8 bits, for CPUs."""

from __future__ import annotations

import warnings

import torch
from transformers import PreTrainedModel

from ragweave.errors import ConfigurationError

# Second layers of feed-forward blocks: their inputs have outliers, for which one scale per activation is too coarse.
# In 8 bits, they and the head halve the number of right answers of the embedded model (docs/performance.md).
FLOAT32_LAYERS = frozenset({"down_proj", "fc2", "wo", "w2", "dense_4h_to_h"})


def quantize_int8(model: PreTrainedModel) -> None:
    """Replace a model's linear layers by 8-bit layers, with a scale per row of weights and one per activation.

    The head and the layers in `FLOAT32_LAYERS` are unchanged. This is PyTorch's dynamic quantisation. It works on
    CPUs only, and the model can be neither trained nor saved afterwards. Its successor, torchao's, is slower than
    bfloat16 there without compilation.

    Args:
        model: A model on the CPU, changed in place; everything but the linear layers becomes float32.

    Raises:
        ConfigurationError: The model is not on the CPU, or this torch has no dynamic quantisation.
    """
    if model.device.type != "cpu":
        raise ConfigurationError(
            f"dtype 'int8' is for CPUs, and the generator is on {model.device}; choose 'bfloat16' there."
        )
    try:
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic
    except ImportError as error:  # pragma: no cover
        raise ConfigurationError(
            f"torch {torch.__version__} no longer has dynamic quantisation; choose dtype 'bfloat16'."
        ) from error
    head = model.get_output_embeddings()
    layers = {
        name: per_channel_dynamic_qconfig
        for name, layer in model.named_modules()
        if type(layer) is torch.nn.Linear
        and layer is not head
        and name.rpartition(".")[2] not in FLOAT32_LAYERS
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the move to torchao
        quantize_dynamic(model.float(), layers, dtype=torch.qint8, inplace=True)
