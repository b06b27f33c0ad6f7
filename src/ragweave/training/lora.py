"""LoRA, low-rank adapters of a generator (Hu et al. 2021), with peft."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ragweave.errors import ConfigurationError, require_extra


def add_adapter(generator: nn.Module, *, rank: int = 16) -> None:
    """Add an adapter of scale ``2 * rank`` to every linear layer of a generator, and freeze all other weights.

    Raises `ConfigurationError` if the generator has no linear layers besides its head.
    """
    require_extra("peft", "train")
    from peft import LoraConfig, inject_adapter_in_model

    layers = _linear_layers(generator)
    if not layers:
        raise ConfigurationError(
            f"{type(generator).__name__} has no linear layers for an adapter: train the generator without --lora "
            "(add_adapter), or choose another one."
        )
    settings = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=[*layers],
        # Conv1D stores its weights as (in, out). If a generator has layers of both kinds, peft tells them apart.
        fan_in_fan_out=all(isinstance(layer, Conv1D) for layer in layers.values()),
    )
    # get_peft_model would wrap the generator in a model of another class.
    inject_adapter_in_model(settings, generator)
    for name, weight in generator.named_parameters():
        weight.requires_grad_("lora_" in name)


def merge_adapter(generator: nn.Module) -> None:
    """Add the adapter to the weights of the generator, and remove it."""
    from peft.tuners.lora import LoraLayer

    modules: list[tuple[str, Any]] = [*generator.named_modules()]
    for name, layer in modules:
        if isinstance(layer, LoraLayer):
            layer.merge()
            parent, _, attribute = name.rpartition(".")
            setattr(generator.get_submodule(parent), attribute, layer.get_base_layer())
    generator.requires_grad_(True)


def _linear_layers(generator: Any) -> dict[str, nn.Module]:
    """All linear layers by name except the head, whose weights are often those of the embeddings."""
    head = generator.get_output_embeddings()
    return {
        name: layer
        for name, layer in generator.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and layer is not head  # GPT-2 has only Conv1D
    }
