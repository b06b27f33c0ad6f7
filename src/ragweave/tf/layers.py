"""The few layers that the networks are made of, with the names and layouts of the checkpoints' weights.

A layer makes its weights when it is constructed, so that a network is whole before it has seen any input.

Notation used for tensor shapes
    N rows, T queries, S keys, h heads, d size of a head, H size of a state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from ragweave.errors import ConfigurationError
from ragweave.tf.backend import multiply_transposed

# What is added to the score of a key that may not be seen. Scores are float32, whatever the weights are.
HIDDEN = -1e9


class Container(keras.layers.Layer):
    """A layer of layers. It takes what it is given as it is: in mixed precision, biases of scores stay float32."""

    def __init__(self) -> None:
        super().__init__(autocast=False)


class Linear(keras.layers.Layer):
    """x W' + b, the weights laid out as torch lays them out: (outputs, inputs).

    Args:
        inputs: Size of what comes in.
        outputs: Size of what goes out.
        bias: Whether there is a bias.
        std: Standard deviation of fresh weights.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, std: float = 0.02) -> None:
        super().__init__()
        normal = keras.initializers.RandomNormal(stddev=std)
        self.weight = self.add_weight(shape=(outputs, inputs), initializer=normal, name="weight")
        self.bias = self.add_weight(shape=(outputs,), initializer="zeros", name="bias") if bias else None
        self.built = True

    def call(self, states: Any) -> Any:
        """(..., inputs) to (..., outputs)."""
        product = multiply_transposed(states, self.weight)
        return product if self.bias is None else product + self.bias


class Embedding(keras.layers.Layer):
    """Rows of a table.

    Args:
        rows: Number of rows.
        size: Size of a row.
        padding: A row that gets no gradient where it is looked up, as torch's ``padding_idx``.
        scale: Factor on what is looked up.
        std: Standard deviation of fresh weights.
    """

    def __init__(
        self, rows: int, size: int, *, padding: int | None = None, scale: float = 1.0, std: float = 0.02
    ) -> None:
        super().__init__()
        normal = keras.initializers.RandomNormal(stddev=std)
        self.weight = self.add_weight(shape=(rows, size), initializer=normal, name="weight")
        self._padding, self._scale = padding, scale
        self.built = True

    def call(self, ids: Any) -> Any:
        """(...) to (..., size)."""
        found = ops.take(self.weight, ids, axis=0)
        if self._padding is not None:
            found = ops.where(ops.equal(ids, self._padding)[..., None], ops.stop_gradient(found), found)
        return found if self._scale == 1.0 else found * ops.cast(self._scale, found.dtype)


class LayerNorm(keras.layers.Layer):
    """Mean zero, variance one, then a factor and an offset; computed in float32.

    Args:
        size: Size of a state.
        epsilon: Added to the variance.
    """

    def __init__(self, size: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = self.add_weight(shape=(size,), initializer="ones", name="weight")
        self.bias = self.add_weight(shape=(size,), initializer="zeros", name="bias")
        self._epsilon = epsilon
        self.built = True

    def call(self, states: Any) -> Any:
        """(..., size) to the same."""
        wide = at_least_float32(states)
        mean = ops.mean(wide, axis=-1, keepdims=True)
        centred = wide - mean
        variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
        normal = ops.cast(centred * ops.rsqrt(variance + self._epsilon), states.dtype)
        return normal * self.weight + self.bias


class ScaleNorm(keras.layers.Layer):
    """T5's layer norm: a root mean square of one, then a factor; neither mean nor offset. Computed in float32.

    Args:
        size: Size of a state.
        epsilon: Added to the mean square.
    """

    def __init__(self, size: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.weight = self.add_weight(shape=(size,), initializer="ones", name="weight")
        self._epsilon = epsilon
        self.built = True

    def call(self, states: Any) -> Any:
        """(..., size) to the same."""
        wide = at_least_float32(states)
        square = ops.mean(ops.square(wide), axis=-1, keepdims=True)
        return ops.cast(wide * ops.rsqrt(square + self._epsilon), states.dtype) * self.weight


def attend(
    query: Any, key: Any, value: Any, bias: Any = None, dropout: Callable[[Any], Any] | None = None
) -> tuple[Any, Any]:
    """Multi-head attention; scores and their softmax in float32.

    Args:
        query: (N, h, T, d), scaled already.
        key: (N, h, S, d).
        value: (N, h, S, d).
        bias: Added to the scores, float32, to be broadcast to (N, h, T, S).
        dropout: Of attention weights.

    Returns:
        States, (N, T, h*d), and attention weights, (N, h, T, S).
    """
    scores = at_least_float32(ops.matmul(query, ops.swapaxes(key, -1, -2)))
    if bias is not None:
        scores = scores + bias
    # Keras warns of a softmax over one thing; it is 1.
    weights = ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)
    weights = ops.cast(weights, value.dtype)
    if dropout is not None:
        weights = dropout(weights)
    return join_heads(ops.matmul(weights, value)), weights


def split_heads(states: Any, heads: int) -> Any:
    """(N, T, h*d) to (N, h, T, d)."""
    n, t, size = ops.shape(states)
    return ops.transpose(ops.reshape(states, (n, t, heads, size // heads)), (0, 2, 1, 3))


def join_heads(states: Any) -> Any:
    """(N, h, T, d) to (N, T, h*d)."""
    n, heads, t, size = ops.shape(states)
    return ops.reshape(ops.transpose(states, (0, 2, 1, 3)), (n, t, heads * size))


def hidden_keys(mask: Any) -> Any:
    """The bias that hides padding: a mask over keys, (N, S), to (N, 1, 1, S)."""
    return ops.where(ops.equal(mask, 0), HIDDEN, 0.0)[:, None, None, :]


def at_least_float32(tensor: Any) -> Any:
    """Half precision as float32; float32 and float64 as they are."""
    return (
        tensor
        if keras.backend.standardize_dtype(tensor.dtype) in ("float32", "float64")
        else ops.cast(tensor, "float32")
    )


def within_range(states: Any) -> Any:
    """States that float16 can hold: what has become infinite is cut off, as transformers does; others as they are."""
    if keras.backend.standardize_dtype(states.dtype) != "float16":
        return states
    most = 65504.0 - 1000.0
    return ops.clip(states, -most, most)


def activation(name: str) -> Callable[[Any], Any]:
    """An activation by the name that transformers has for it.

    Raises:
        ConfigurationError: There is none of this name here; the message lists those that there are.
    """
    if name not in _ACTIVATIONS:
        raise ConfigurationError(
            f"The activation '{name}' is not supported by ragweave.tf; supported are "
            f"{', '.join(sorted(_ACTIVATIONS))}."
        )
    return _ACTIVATIONS[name]


def _exact_gelu(x: Any) -> Any:
    return ops.gelu(x, approximate=False)


def _tanh_gelu(x: Any) -> Any:
    return ops.gelu(x, approximate=True)


_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": _exact_gelu,
    "gelu_python": _exact_gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "gelu_python_tanh": _tanh_gelu,
    "gelu_accurate": _tanh_gelu,
    "quick_gelu": lambda x: x * ops.sigmoid(1.702 * x),
    "relu": ops.relu,
    "relu2": lambda x: ops.square(ops.relu(x)),
    "relu6": ops.relu6,
    "leaky_relu": lambda x: ops.leaky_relu(x, negative_slope=0.01),
    "silu": ops.silu,
    "swish": ops.silu,
    "mish": lambda x: x * ops.tanh(ops.softplus(x)),
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "linear": lambda x: x,
}
