"""Linear layers with weights of 8 bits, for processors."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ragweave.errors import ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# What layers by these names are given has outliers, for which one scale per activation is too coarse: they are the
# second layers of feed-forward blocks. On the embedded model, they and the head make the difference between half of
# the right answers and all of them (docs/performance.md).
KEPT_IN_FLOAT32 = frozenset({"down_proj", "fc2", "wo", "w2", "dense_4h_to_h"})


def quantize_int8(model: PreTrainedModel) -> None:
    """Replace a model's linear layers by layers of 8 bits: a scale per row of weights, and one per activation.

    The head, and layers by the names of `KEPT_IN_FLOAT32`, stay as they are.

    It is torch's dynamic quantisation, and runs on processors only; the model can neither be trained nor saved
    afterwards. torchao's, which is to replace it, is slower than bfloat16 there without compilation.

    Args:
        model: A model on the CPU, changed in place; what is no linear layer is float32 then.

    Raises:
        ConfigurationError: The model is elsewhere than on the CPU, or this torch cannot quantise.
    """
    import torch

    if model.device.type != "cpu":
        raise ConfigurationError(
            f"dtype 'int8' is for processors, and the generator is on {model.device}; choose 'bfloat16' there."
        )
    try:
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic
    except ImportError as error:  # pragma: no cover
        raise ConfigurationError(
            f"torch {torch.__version__} has no dynamic quantisation any more; choose dtype 'bfloat16'."
        ) from error
    head = model.get_output_embeddings()
    layers = {
        name: per_channel_dynamic_qconfig
        for name, layer in model.named_modules()
        if type(layer) is torch.nn.Linear
        and layer is not head
        and name.rpartition(".")[2] not in KEPT_IN_FLOAT32
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is to move to torchao
        quantize_dynamic(model.float(), layers, dtype=torch.qint8, inplace=True)
