"""float32 linear layers through oneDNN, on CPUs where PyTorch's default library is slow.

On x86, PyTorch multiplies float32 matrices with MKL. On AMD CPUs MKL is half as fast as oneDNN, which PyTorch
contains but uses for half precision only. `fast_linear` uses it for float32, within a ``with`` block and only
where it pays. Measured with ``benchmarks/token_decoding.py``, ``sequence_decoding.py`` and ``training_step.py``
(docs/performance.md).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

# For layers with fewer weights, the overhead exceeds the gain.
MIN_WEIGHTS = 2**14


def fast_linear(model: torch.nn.Module) -> AbstractContextManager[Any]:
    """Compute a model's linear layers with oneDNN in a ``with`` block, on CPUs where oneDNN is faster.

    Results differ from PyTorch's by rounding (1e-6 relative in float32), as they do between machines. Gradients of
    any order pass through. PyTorch computes layers on other devices, of other types than float32, and with weights
    of a tensor subclass (quantised, distributed), and everything within
    ``torch.backends.mkldnn.flags(enabled=False)`` or ``torch.compile``.
    """
    weight = next(model.parameters(), None)
    applies = (
        weight is not None
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and pays()
        and torch.backends.mkldnn.enabled
        and not torch.compiler.is_compiling()
    )
    return _FastLinear() if applies else nullcontext()


@cache
def pays() -> bool:
    """Whether this PyTorch has MKL and oneDNN and the CPU is not Intel's."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if "Intel" in torch.cpu.get_capabilities().get("cpu_name", "Intel"):
        return False
    x, weight = torch.ones(2, 3), torch.ones(4, 3)
    try:
        return torch.equal(_onednn_linear(x, weight, None), linear(x, weight))
    except (AttributeError, RuntimeError, TypeError):
        return False


class _FastLinear(TorchFunctionMode):
    """Sends ``torch.nn.functional.linear`` to oneDNN."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is linear and not kwargs and _supports(*args[:2]):
            return _product(*args)
        return func(*args, **(kwargs or {}))


class _Product(torch.autograd.Function):
    """x @ weight.T + bias with gradients, all through oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn_linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0]
        rows = gradient.flatten(0, -2)  # (..., outputs) to (rows, outputs)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.t()) if needs_x else None,
            _product(rows.t(), x.flatten(0, -2).t()) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in (x, weight, bias)):
        product: Tensor = _Product.apply(x, weight, bias)
        return product
    return _onednn_linear(x, weight, bias)


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # A private operator: torch.compile emits it for linear layers. The public switches do not do this:
    # torch.backends.mkldnn.matmul only lowers the precision, and torch.utils.mkldnn converts the weights and has
    # no gradient. If PyTorch drops the operator, `pays` is false, and tests/encoders/test_linear.py fails.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def _supports(x: Tensor, weight: Tensor) -> bool:
    return (
        type(weight) in (Tensor, torch.nn.Parameter)
        and type(x) in (Tensor, torch.nn.Parameter)
        and weight.dtype == x.dtype == torch.float32
        and weight.device.type == x.device.type == "cpu"
        and weight.numel() >= MIN_WEIGHTS
        and x.dim() > 1
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )
