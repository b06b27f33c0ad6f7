"""Low-rank adapters of a generator (Hu et al. 2021), by peft: put in, and merged when trained."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ragweave.errors import ConfigurationError, require_extra


def add_adapter(generator: nn.Module, *, rank: int = 16) -> None:
    """Put an adapter beside every linear layer, and let nothing else of the generator be trained.

    Args:
        generator: The generator, changed in place.
        rank: The adapter's rank; its scale is twice that.

    Raises:
        MissingExtraError: The extra ``train`` is not installed.
        ConfigurationError: The generator has no linear layers but its head.
    """
    require_extra("peft", "train")
    from peft import LoraConfig, inject_adapter_in_model

    layers = _linear_layers(generator)
    if not layers:
        raise ConfigurationError(
            f"{type(generator).__name__} has no linear layers that an adapter could be put beside: train the "
            "generator itself (without --lora), or choose another."
        )
    settings = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=[*layers],
        # Conv1D keeps its weights as (in, out). Where a generator has layers of both kinds, peft tells them apart.
        fan_in_fan_out=all(isinstance(layer, Conv1D) for layer in layers.values()),
    )
    # Not get_peft_model, which would put the generator into a model of another class.
    inject_adapter_in_model(settings, generator)
    for name, weight in generator.named_parameters():
        weight.requires_grad_("lora_" in name)


def merge_adapter(generator: nn.Module) -> None:
    """Add what an adapter has learned to the weights, and take it out."""
    from peft.tuners.lora import LoraLayer

    for name, layer in [*generator.named_modules()]:
        if isinstance(layer, LoraLayer):
            own: Any = layer
            own.merge()
            parent, _, child = name.rpartition(".")
            setattr(generator.get_submodule(parent), child, own.get_base_layer())
    generator.requires_grad_(True)


def _linear_layers(generator: Any) -> dict[str, nn.Module]:
    """All linear layers by name but the head, whose weights are often those of the embeddings."""
    head = generator.get_output_embeddings()
    return {
        name: layer
        for name, layer in generator.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and layer is not head  # GPT-2 has none but Conv1D
    }
