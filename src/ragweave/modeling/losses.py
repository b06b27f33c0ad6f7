"""Losses of several questions that can go backward as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class QuestionLosses(Tensor):
    """Losses of B questions, (B,), whose `backward` gives the gradient of their sum.

    Torch refuses to go backward from a vector, and every training script that forgets ``reduce_loss=True`` stops
    there. What is computed from the losses, their mean for one, is an ordinary tensor.
    """

    # As torch.nn.Parameter does: operations on a subclass return plain tensors.
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    def backward(self, gradient: Tensor | None = None, *args: Any, **kwargs: Any) -> None:
        """Go backward from the sum, or with the caller's own weights, (B,); arguments as for torch's."""
        weights = torch.ones_like(self) if gradient is None else gradient
        self.as_subclass(Tensor).backward(weights, *args, **kwargs)
