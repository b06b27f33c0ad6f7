"""The layer of BART, T5 and BERT, and the stack that runs layers.

Notation used for tensor shapes
    N contexts, R rows per context (beams, samples, hypotheses), S context tokens, T decoder tokens, L tokens that a
    cache has room for, H size of a state, h heads, d size of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
from keras import ops

from ragweave.tf.keras_backend import Tensor
from ragweave.tf.layers import (
    Container,
    Embedding,
    Linear,
    Tensors,
    activation,
    attend,
    split_heads,
    within_range,
)

CrossKeys = tuple[Tensors, Tensors]
"""Keys and values of the contexts, (N, h, S, d) for each layer; R rows share them."""


class DecoderCache(NamedTuple):
    """Keys and values of a decoder's layers. Their shapes stay the same from step to step, so graphs are reused."""

    keys: Tensors  # of decoder tokens, (N*R, h, L, d) for each layer; positions from ``length`` on are empty
    values: Tensors
    cross: CrossKeys
    length: Tensor  # number of decoder tokens in the cache, an int32 scalar

    def with_room_for(self, tokens: int) -> DecoderCache:
        """The same cache with room for more tokens."""
        paddings = ((0, 0), (0, 0), (0, tokens), (0, 0))
        return self._replace(
            keys=tuple(ops.pad(key, paddings) for key in self.keys),
            values=tuple(ops.pad(value, paddings) for value in self.values),
        )

    def reordered(self, rows: Tensor) -> DecoderCache:
        """Let every row continue another row, (N*R,), of the same context."""
        return self._replace(
            keys=tuple(ops.take(key, rows, axis=0) for key in self.keys),
            values=tuple(ops.take(value, rows, axis=0) for value in self.values),
        )


@dataclass(frozen=True, kw_only=True)
class LayerSettings:
    """The sizes and options in which layers differ."""

    file_names: Mapping[str, str]  # how checkpoints name the parts of `TransformerLayer` and `Attention`
    size: int  # H
    heads: int
    head_size: int
    wide_size: int  # of the feed-forward network
    activation: str
    norm: Callable[[], keras.layers.Layer]  # creates a norm
    dropout: float
    attention_dropout: float
    activation_dropout: float = 0.0
    std: float  # standard deviation of fresh weights, and where it is another one:
    query_std: float | None = None
    project_std: float | None = None
    narrow_std: float | None = None
    bias: bool = True  # whether linear layers have one
    scaled: bool = True  # whether scores are divided by the root of d
    norm_first: bool = False  # whether norms come before attention and feed-forward network, or after the sum
    gated: bool = False


class Attention(Container):
    """Multi-head attention with projections."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings.file_names)
        size, inner, bias, std = (
            settings.size,
            settings.heads * settings.head_size,
            settings.bias,
            settings.std,
        )
        self.query = Linear(size, inner, bias=bias, std=settings.query_std or std)
        self.key = Linear(size, inner, bias=bias, std=std)
        self.value = Linear(size, inner, bias=bias, std=std)
        self.project = Linear(inner, size, bias=bias, std=settings.project_std or std)
        self.dropout = keras.layers.Dropout(settings.attention_dropout)
        self._heads = settings.heads
        self._scale = settings.head_size**-0.5 if settings.scaled else 1.0

    def keys_values(self, states: Tensor) -> Tensors:
        """Keys and values, (N, h, S, d), of states, (N, S, H)."""
        return split_heads(self.key(states), self._heads), split_heads(self.value(states), self._heads)

    def call(self, states: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, H) to the same, and attention weights, (N, h, T, S)."""
        query = split_heads(self.query(states) * self._scale, self._heads)
        attended, weights = attend(query, key, value, bias, self.dropout)
        return self.project(attended), weights


class TransformerLayer(Container):
    """Self-attention, attention to contexts in a decoder, and a feed-forward network."""

    def __init__(self, settings: LayerSettings, *, decoder: bool = False) -> None:
        super().__init__(settings.file_names)
        size, wide_size, bias = settings.size, settings.wide_size, settings.bias
        self.attention = Attention(settings)
        self.attention_norm = settings.norm()
        self.cross_attention: Any = Attention(settings) if decoder else None
        self.cross_norm = settings.norm() if decoder else None
        self.wide = Linear(size, wide_size, bias=bias, std=settings.std)
        self.gate = Linear(size, wide_size, bias=bias, std=settings.std) if settings.gated else None
        self.narrow = Linear(wide_size, size, bias=bias, std=settings.narrow_std or settings.std)
        self.feed_forward_norm = settings.norm()
        self.dropout = keras.layers.Dropout(settings.dropout)
        self.activation_dropout = keras.layers.Dropout(settings.activation_dropout)
        self._activation = activation(settings.activation)
        self._norm_first = settings.norm_first

    def call(
        self,
        states: Tensor,
        bias: Tensor,
        cross: Tensors | None = None,
        cross_bias: Tensor = None,
        earlier: Tensors | None = None,
    ) -> Tensors:
        """Run the layer.

        Args:
            states: (N, S, H) or, in a decoder, (N*R, T, H).
            bias: Hides tokens; added to scores.
            cross: In a decoder, keys and values of the contexts.
            cross_bias: Hides padding of the contexts, (N, 1, 1, S).
            earlier: Keys, (N*R, h, L, d), and values of earlier tokens, and how many of them are filled.

        Returns:
            States, and attention weights; in a decoder also cross attentions, (N, h, R*T, S), and the keys and values
            of decoder tokens, (N*R, h, L, d).
        """
        inputs = self._before(self.attention_norm, states)
        keys_values = _append(earlier, self.attention.keys_values(inputs))
        attended, weights = self.attention(inputs, *keys_values, bias)
        states = self._after(self.attention_norm, states, attended)
        if cross is None:
            return self._feed_forward(states), weights
        attended, cross_weights = self._attend_to_contexts(
            self._before(self.cross_norm, states), cross, cross_bias
        )
        states = self._after(self.cross_norm, states, attended)
        return self._feed_forward(states), weights, cross_weights, *keys_values

    def _attend_to_contexts(
        self, states: Tensor, cross: Tensors, cross_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attention of R rows per context, (N*R, T, H), to keys and values of N contexts.

        Rows are folded into the length of the queries, so that the R rows of a context share its keys and values,
        which are neither repeated nor read R times.
        """
        folded = ops.reshape(states, (ops.shape(cross[0])[0], -1, ops.shape(states)[2]))  # (N, R*T, H)
        attended, weights = self.cross_attention(folded, *cross, cross_bias)
        return ops.reshape(attended, ops.shape(states)), weights

    def _feed_forward(self, states: Tensor) -> Tensor:
        inputs = self._before(self.feed_forward_norm, states)
        wide = self._activation(self.wide(inputs))
        if self.gate is not None:
            wide = wide * self.gate(inputs)
        return self._after(self.feed_forward_norm, states, self.narrow(self.activation_dropout(wide)))

    def _before(self, norm: Any, states: Tensor) -> Tensor:
        return norm(states) if self._norm_first else states

    def _after(self, norm: Any, states: Tensor, output: Tensor) -> Tensor:
        """The residual connection."""
        states = states + self.dropout(output)
        return within_range(states if self._norm_first else norm(states))


class Stack(Container):
    """The layers of an encoder or decoder; ``embed_tokens`` is set if a checkpoint has separate word embeddings."""

    def __init__(
        self,
        settings: LayerSettings,
        n_layers: int,
        *,
        decoder: bool = False,
        file_names: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(file_names)
        self.embed_tokens: Embedding | None = None
        self.layers = [TransformerLayer(settings, decoder=decoder) for _ in range(n_layers)]
        self.dropout = keras.layers.Dropout(settings.dropout)

    def call(
        self,
        states: Tensor,
        bias: Tensor,
        cross: CrossKeys | None = None,
        cross_bias: Tensor = None,
        past: DecoderCache | None = None,
    ) -> tuple[list[Tensor], ...]:
        """Run the layers one after the other; arguments as for `TransformerLayer.call`, for all layers.

        Returns:
            Lists of the results of each layer; the states before the first layer come first.
        """
        states, bias = self._with_positions(states, bias, 0 if past is None else past.length)
        outputs: tuple[list[Tensor], ...] = ([states], [], [], [], [])
        for number, layer in enumerate(self.layers):
            keys_values = None if cross is None else (cross[0][number], cross[1][number])
            earlier = None if past is None else (past.keys[number], past.values[number], past.length)
            output = layer(outputs[0][-1], bias, keys_values, cross_bias, earlier)
            for collected, value in zip(outputs, output, strict=False):  # an encoder's layers return less
                collected.append(value)
        outputs[0][-1] = self._final(outputs[0][-1])
        return outputs

    def _with_positions(self, states: Tensor, bias: Tensor, offset: Any) -> tuple[Tensor, Tensor]:
        """Add the positions from ``offset`` on to states and bias."""
        return states, bias

    def _final(self, states: Tensor) -> Tensor:
        """The states after the last layer."""
        return states


def _append(earlier: Tensors | None, keys_values: Tensors) -> Tensors:
    """Keys and values of T new tokens, (N*R, h, T, d), written after earlier ones, (N*R, h, L, d), if any."""
    if earlier is None:
        return keys_values
    *past, length = earlier
    return tuple(
        ops.slice_update(old, (0, 0, length, 0), ops.cast(new, old.dtype))
        for old, new in zip(past, keys_values, strict=True)
    )
