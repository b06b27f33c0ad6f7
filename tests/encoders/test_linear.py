"""Linear layers through oneDNN give PyTorch's numbers and gradients, and leave other cases to PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from ragweave.encoders import linear as module
from ragweave.encoders.linear import fast_linear

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture(autouse=True)
def _pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU where oneDNN pays, on any CPU."""
    monkeypatch.setattr(module, "pays", lambda: True)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Size]]:
    """Shapes of the weights that oneDNN multiplied."""
    actual: list[torch.Size] = []
    genuine = module._onednn_linear

    def spy(x: torch.Tensor, weight: torch.Tensor, bias: Any) -> torch.Tensor:
        actual.append(weight.shape)
        return genuine(x, weight, bias)

    monkeypatch.setattr(module, "_onednn_linear", spy)
    return actual


def test_torch_still_has_the_private_operator() -> None:
    x, weight = torch.randn(3, 160), torch.randn(130, 160)
    assert torch.allclose(module._onednn_linear(x, weight, None), linear(x, weight), atol=1e-4)


def layer(inputs: int = 160, outputs: int = 130, *, bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(inputs, outputs, bias=bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(1,), (7,), (3, 5), (2, 3, 4), (300,)])
def test_products_are_torchs(rows: tuple[int, ...], bias: bool, products: list[torch.Size]) -> None:
    dense, x = layer(bias=bias), torch.randn(*rows, 160)
    with torch.no_grad():
        expected = dense(x)
        with fast_linear(torch.nn.Linear(1, 1)):
            actual = dense(x)
    assert len(products) == 1
    assert torch.allclose(actual, expected, atol=1e-5)


def test_slices_and_transposed_tensors() -> None:
    weight, x = torch.randn(160, 260).t()[::2], torch.randn(160, 9).t()
    with fast_linear(torch.nn.Linear(1, 1)):
        assert torch.allclose(linear(x, weight), x @ weight.t(), atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(7,), (3, 5)])
def test_gradients_are_torchs(rows: tuple[int, ...], bias: bool, products: list[torch.Size]) -> None:
    dense, x, upstream = (
        layer(bias=bias),
        torch.randn(*rows, 160, requires_grad=True),
        torch.randn(*rows, 130),
    )
    variables = [x, *dense.parameters()]
    expected = torch.autograd.grad(dense(x), variables, upstream)
    with fast_linear(torch.nn.Linear(1, 1)):
        output = dense(x)
    actual = torch.autograd.grad(output, variables, upstream)  # also outside of it
    assert len(products) == 3
    for one, other in zip(actual, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_only_gradients_that_are_asked_for_are_computed(products: list[torch.Size]) -> None:
    dense, x = layer(), torch.randn(7, 160)
    with fast_linear(torch.nn.Linear(1, 1)):
        dense(x).sum().backward()
    assert x.grad is None
    assert len(products) == 2


def test_gradients_of_gradients() -> None:
    weight = (torch.randn(130, 160) / 100).requires_grad_()
    x = torch.randn(3, 160, requires_grad=True)

    def penalty() -> torch.Tensor:
        (gradient,) = torch.autograd.grad(linear(x, weight).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.pow(2).sum(), weight)[0]

    expected = penalty()
    with fast_linear(torch.nn.Linear(1, 1)):
        actual = penalty()
    assert torch.allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (torch.randn(3, 160).bfloat16(), torch.randn(130, 160).bfloat16()),
        (torch.randn(3, 160).double(), torch.randn(130, 160).double()),
        (torch.randn(160), torch.randn(130, 160)),
        (torch.randn(0, 160), torch.randn(130, 160)),
        (torch.randn(3, 16), torch.randn(13, 16)),
    ],
    ids=["bfloat16", "float64", "vector", "empty", "small"],
)
def test_what_does_not_fit_is_torchs_own(
    x: torch.Tensor, weight: torch.Tensor, products: list[torch.Size]
) -> None:
    expected = linear(x, weight)
    with fast_linear(torch.nn.Linear(1, 1)):
        assert torch.equal(linear(x, weight), expected)
    assert products == []


def test_autocast_is_respected(products: list[torch.Size]) -> None:
    with fast_linear(torch.nn.Linear(1, 1)), torch.autocast("cpu", torch.bfloat16):
        assert layer()(torch.randn(3, 160)).dtype == torch.bfloat16
    assert products == []


def test_weights_of_a_subclass_are_left_alone(products: list[torch.Size]) -> None:
    class Quantised(torch.Tensor):
        pass

    with fast_linear(torch.nn.Linear(1, 1)):
        linear(torch.randn(3, 160), torch.randn(130, 160).as_subclass(Quantised))
    assert products == []


@pytest.mark.filterwarnings("ignore:TF32")
def test_it_can_be_switched_off() -> None:
    with torch.backends.mkldnn.flags(enabled=False):
        assert not isinstance(fast_linear(torch.nn.Linear(1, 1)), TorchFunctionMode)
    assert isinstance(fast_linear(torch.nn.Linear(1, 1)), TorchFunctionMode)


def test_compiled_models_are_left_to_the_compiler() -> None:
    dense, x = layer(), torch.randn(3, 160)

    def run(argument: torch.Tensor) -> torch.Tensor:
        with fast_linear(torch.nn.Linear(1, 1)):
            return dense(argument)

    compiled = torch.compile(run, backend="eager", fullgraph=False)
    assert torch.allclose(compiled(x), dense(x), atol=1e-5)


@pytest.mark.parametrize("model", [layer().bfloat16(), layer().to("meta"), torch.nn.Identity()])
def test_models_without_float32_weights_here_are_not_slowed_down(model: torch.nn.Module) -> None:
    assert not isinstance(fast_linear(model), TorchFunctionMode)


def test_other_functions_are_untouched() -> None:
    x = torch.randn(3, 160)
    with fast_linear(torch.nn.Linear(1, 1)):
        assert torch.equal(torch.relu(x), x.clamp(min=0))
        assert torch.equal(linear(input=x, weight=torch.eye(160)), x)
