"""The layers that the networks are made of, with the names and layouts of torch's weights.

A layer creates its weights in its constructor, so that a network is complete before its first call.

Notation used for tensor shapes
    N rows, T queries, S keys or input tokens, h heads, d size of a head, H size of a state, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import keras
from keras import ops

from ragweave.errors import ConfigurationError
from ragweave.tf.keras_backend import Tensor, multiply_transposed

# Added to the score of a hidden key. Scores are float32, whatever the weights are.
HIDDEN = -1e9

Tensors = tuple[Tensor, ...]


@dataclass
class Encoded:
    """The output of an encoder."""

    attention_mask: Tensor  # mask of the input, (N, S)
    last_hidden_state: Tensor  # (N, S, H); None from DPR
    pooled: Tensor = None  # one vector for each row, (N, D), where the network computes one
    hidden_states: Tensors | None = None  # layer by layer, with ``output_hidden_states``
    attentions: Tensors | None = None  # layer by layer, with ``output_attentions``

    @property
    def pooler_output(self) -> Tensor:
        """The vectors of ``pooled``; transformers' name."""
        return self.pooled

    def __getitem__(self, index: int) -> Any:
        """The field at this position among those that are not None, as in outputs of transformers."""
        values = (self.last_hidden_state, self.pooled, self.hidden_states, self.attentions)
        return tuple(value for value in values if value is not None)[index]

    @classmethod
    def from_layers(
        cls,
        attention_mask: Tensor,
        hidden: list[Tensor],
        attentions: list[Tensor],
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Self:
        """The output with the fields that a caller requested, from the results of the layers."""
        return cls(
            attention_mask,
            hidden[-1],
            hidden_states=tuple(hidden) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


class Container(keras.layers.Layer):
    """A layer of layers. Its inputs keep their types: in mixed precision, biases of scores stay float32.

    ``file_names`` says how checkpoints name its attributes, where they differ.
    """

    def __init__(self, file_names: Mapping[str, str] | None = None) -> None:
        super().__init__(autocast=False)
        self.built = True  # constructors create all weights
        self._file_names = dict(file_names or {})


class Network(Container):
    """A counterpart of a model of transformers, with its configuration."""

    # The prefix of some names in checkpoints: see `ragweave.tf.checkpoints.renaming`.
    base_model_prefix: ClassVar[str]
    # Prefixes of names that a checkpoint may lack.
    optional: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any, file_names: Mapping[str, str] | None = None) -> None:
        super().__init__(file_names)
        self.config = config

    @property
    def tied(self) -> dict[str, str]:
        """Weights that share another one, unless a checkpoint has separate ones under their names."""
        return {}


class Linear(keras.layers.Layer):
    """x W' + b, the weights laid out as in torch: (outputs, inputs); ``std`` is that of fresh weights."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, std: float = 0.02) -> None:
        super().__init__()
        normal = keras.initializers.RandomNormal(stddev=std)
        self.weight = self.add_weight(shape=(outputs, inputs), initializer=normal, name="weight")
        self.bias = self.add_weight(shape=(outputs,), initializer="zeros", name="bias") if bias else None
        self.built = True

    def call(self, states: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        product = multiply_transposed(states, self.weight)
        return product if self.bias is None else product + self.bias


class Embedding(keras.layers.Layer):
    """Rows of a table, times ``scale``; ``std`` is that of fresh weights.

    Looking up the row ``padding`` adds nothing to its gradient, as with torch's ``padding_idx``.
    """

    def __init__(
        self, rows: int, size: int, *, padding: int | None = None, scale: float = 1.0, std: float = 0.02
    ) -> None:
        super().__init__()
        normal = keras.initializers.RandomNormal(stddev=std)
        self.weight = self.add_weight(shape=(rows, size), initializer=normal, name="weight")
        self._padding, self._scale = padding, scale
        self.built = True

    def call(self, ids: Tensor) -> Tensor:
        """(...) to (..., size)."""
        rows = ops.take(self.weight, ids, axis=0)
        if self._padding is not None:
            rows = ops.where(ops.equal(ids, self._padding)[..., None], ops.stop_gradient(rows), rows)
        return rows if self._scale == 1.0 else rows * ops.cast(self._scale, rows.dtype)


class RMSNorm(keras.layers.Layer):
    """T5's norm: a root mean square of one, then a factor. Computed in float32."""

    def __init__(self, size: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.weight = self.add_weight(shape=(size,), initializer="ones", name="weight")
        self._epsilon = epsilon
        self.built = True

    def call(self, states: Tensor) -> Tensor:
        """(..., size) to the same."""
        return self._normalized(at_least_float32(states), states.dtype) * self.weight

    def _normalized(self, wide: Tensor, dtype: Any) -> Tensor:
        square = ops.mean(ops.square(wide), axis=-1, keepdims=True)
        return ops.cast(wide * ops.rsqrt(square + self._epsilon), dtype)


class LayerNorm(RMSNorm):
    """Mean zero, variance one, then a factor and an offset. Computed in float32."""

    def __init__(self, size: int, epsilon: float = 1e-5) -> None:
        super().__init__(size, epsilon)
        self.bias = self.add_weight(shape=(size,), initializer="zeros", name="bias")

    def call(self, states: Tensor) -> Tensor:
        """(..., size) to the same."""
        wide = at_least_float32(states)
        centred = wide - ops.mean(wide, axis=-1, keepdims=True)
        return self._normalized(centred, states.dtype) * self.weight + self.bias


def attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, dropout: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Multi-head attention; scores and their softmax in float32.

    The scaled query is (N, h, T, d), key and value are (N, h, S, d). The bias is added to the scores, float32, and
    broadcast to (N, h, T, S). Returns states, (N, T, h*d), and attention weights, (N, h, T, S).
    """
    scores = at_least_float32(ops.matmul(query, ops.swapaxes(key, -1, -2))) + bias
    # Keras warns of a softmax over one element, which is 1.
    weights = ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)
    weights = dropout(ops.cast(weights, value.dtype))
    n, heads, queries, size = ops.shape(query)
    states = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))  # (N, T, h, d)
    return ops.reshape(states, (n, queries, heads * size)), weights


def split_heads(states: Tensor, heads: int) -> Tensor:
    """(N, T, h*d) to (N, h, T, d)."""
    n, t, size = ops.shape(states)
    return ops.transpose(ops.reshape(states, (n, t, heads, size // heads)), (0, 2, 1, 3))


def hidden_keys(mask: Tensor) -> Tensor:
    """The bias that hides padding: a mask over keys, (N, S), to (N, 1, 1, S)."""
    return ops.where(ops.equal(mask, 0), HIDDEN, 0.0)[:, None, None, :]


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 unchanged."""
    wide = keras.backend.standardize_dtype(tensor.dtype) in ("float32", "float64")
    return tensor if wide else ops.cast(tensor, "float32")


def within_range(states: Tensor) -> Tensor:
    """States that float16 can hold: larger ones are clipped, as in transformers; other types unchanged."""
    if keras.backend.standardize_dtype(states.dtype) != "float16":
        return states
    largest = 65504.0 - 1000.0
    return ops.clip(states, -largest, largest)


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """An activation by its name in transformers; for others `ConfigurationError`, which lists the known ones."""
    if name not in _ACTIVATIONS:
        raise ConfigurationError(
            f"The activation '{name}' is not supported by ragweave.tf; supported are "
            f"{', '.join(sorted(_ACTIVATIONS))}."
        )
    return _ACTIVATIONS[name]


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **dict.fromkeys(("gelu", "gelu_python"), partial(ops.gelu, approximate=False)),
    **dict.fromkeys(
        ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"),
        partial(ops.gelu, approximate=True),
    ),
    **{name: getattr(ops, name) for name in ("relu", "relu6", "sigmoid", "silu", "tanh")},
    "swish": ops.silu,
    "quick_gelu": lambda x: x * ops.sigmoid(1.702 * x),
    "relu2": lambda x: ops.square(ops.relu(x)),
    "leaky_relu": lambda x: ops.leaky_relu(x, negative_slope=0.01),
    "mish": lambda x: x * ops.tanh(ops.softplus(x)),
    "linear": lambda x: x,
}
