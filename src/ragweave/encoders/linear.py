"""Linear layers in float32 through oneDNN, on processors for which torch's usual library is slow.

On x86, torch multiplies float32 matrices with MKL, which reaches half the speed on AMD's processors that oneDNN does
there (docs/performance.md). torch carries oneDNN too, but takes it for half precision only. `fast_linear` has
it taken for float32: for as long as it lasts, and only where it pays.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from ragweave.encoders.hardware import cpu_capabilities

# Layers with fewer weights take less time than the detour.
FEWEST_WEIGHTS = 2**14


def fast_linear(model: torch.nn.Module) -> AbstractContextManager[Any]:
    """Compute a model's linear layers with oneDNN while this lasts, on processors where it is the faster library.

    Results differ from torch's by rounding (in float32, 1e-6 relative), as they do between machines. Gradient of any
    order passes through. Layers elsewhere than on the CPU, of another type than float32, or with weights that are a
    subclass of torch's (quantised, distributed), are torch's own as ever; so is everything within
    ``torch.backends.mkldnn.flags(enabled=False)`` and within ``torch.compile``.
    """
    weight = next(model.parameters(), None)
    wanted = (
        weight is not None
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and pays()
        and torch._C._get_mkldnn_enabled()
        and not torch.compiler.is_compiling()
    )
    return _FastLinear() if wanted else nullcontext()


@cache
def pays() -> bool:
    """Whether this torch has MKL and oneDNN, on a processor that is not Intel's; asked once."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if "Intel" in cpu_capabilities().get("cpu_name", "Intel"):
        return False
    x, weight = torch.ones(2, 3), torch.ones(4, 3)
    try:  # the operator is what torch.compile makes of linear layers, and no promise
        return torch.equal(_multiplied(x, weight, None), linear(x, weight))
    except (AttributeError, RuntimeError, TypeError):
        return False


class _FastLinear(TorchFunctionMode):
    """Sends ``torch.nn.functional.linear`` to oneDNN, and everything else where it was going."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is linear and not kwargs and _fits(*args[:2]):
            return _product(*args)
        return func(*args, **(kwargs or {}))


class _Product(torch.autograd.Function):
    """x @ weight.T + bias with gradient, all of it through oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiplied(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0]
        rows = gradient.flatten(0, -2)
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.t()) if of_x else None,
            _product(rows.t(), x.flatten(0, -2).t()) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        product: Tensor = _Product.apply(x, weight, bias)
        return product
    return _multiplied(x, weight, bias)


def _multiplied(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def _fits(x: Tensor, weight: Tensor) -> bool:
    return (
        type(weight) in (Tensor, torch.nn.Parameter)
        and type(x) in (Tensor, torch.nn.Parameter)
        and weight.dtype == x.dtype == torch.float32
        and weight.device.type == x.device.type == "cpu"
        and weight.numel() >= FEWEST_WEIGHTS
        and x.dim() > 1
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )
