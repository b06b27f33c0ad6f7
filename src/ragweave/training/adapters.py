"""Low-rank adapters of a generator (Hu et al. 2021), by peft: put in, and merged when trained."""

from __future__ import annotations

from typing import Any

from torch import nn

from ragweave.errors import require_extra


def add_adapter(generator: nn.Module, *, rank: int = 16) -> None:
    """Put an adapter beside every linear layer, and let nothing else of the generator be trained.

    Args:
        generator: The generator, changed in place.
        rank: The adapter's rank; its scale is twice that.

    Raises:
        MissingExtraError: The extra ``train`` is not installed.
    """
    require_extra("peft", "train")
    from peft import LoraConfig, inject_adapter_in_model

    # Not get_peft_model, which would put the generator into a model of another class.
    layers = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_linear_layers(generator))
    inject_adapter_in_model(layers, generator)
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


def _linear_layers(generator: Any) -> list[str]:
    """The names of all linear layers but the head, whose weights are often those of the embeddings."""
    head = generator.get_output_embeddings()
    return [
        name
        for name, layer in generator.named_modules()
        if isinstance(layer, nn.Linear) and layer is not head
    ]
