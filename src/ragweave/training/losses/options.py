"""The options that all losses have: the retriever's temperature, and how questions are put together."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ragweave.errors import ConfigurationError

Reduction = Literal["mean", "none"]


def tempered(scores: Tensor, temperature: float, name: str = "temperature") -> Tensor:
    """Scores over a temperature, in float32 or better.

    Args:
        scores: Any scores; -inf stays what it is.
        temperature: What to divide by; above 1 it makes their softmax flatter.
        name: The option's name, for the error.

    Raises:
        ConfigurationError: The temperature is no positive number.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ConfigurationError(f"{name} is {temperature!r}; give a number above 0.")
    return scores.to(torch.promote_types(scores.dtype, torch.float32)) / temperature


def reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    """The losses of B questions, (B,), or their mean, ().

    Raises:
        ConfigurationError: ``reduction`` is neither "mean" nor "none".
    """
    if reduction == "mean":
        return losses.mean()
    if reduction == "none":
        return losses
    raise ConfigurationError(f"reduction is {reduction!r}; choose 'mean' or 'none'.")
