"""T5 (Raffel et al. 2019, arXiv 1910.10683), plain and gated. Attribute paths are the names of checkpoints' weights.

Notation used for tensor shapes: as in `ragweave.tf.encoder_decoder`.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from ragweave.tf.encoder_decoder import (
    CrossKeys,
    DecoderCache,
    EncoderDecoder,
    append,
    attend_to_contexts,
    run_decoder_layers,
)
from ragweave.tf.keras_backend import Tensor
from ragweave.tf.layers import (
    Container,
    Embedding,
    Linear,
    RMSNorm,
    Tensors,
    activation,
    attend,
    run_layers,
    split_heads,
    within_range,
)


def bucket_table(buckets: int, max_distance: int) -> np.ndarray:
    """The bucket of every distance from 0 to ``max_distance``.

    Half of the buckets hold one distance each; the others grow with the distance's logarithm. The table is computed
    once, and in float32 as in transformers, since some distances lie exactly on a bucket's border.

    Args:
        buckets: Number of buckets in one direction.
        max_distance: From this distance on, all are in the last bucket.
    """
    exact = buckets // 2
    distances = np.arange(max_distance + 1)
    far = np.log(np.maximum(distances, 1).astype(np.float32) / np.float32(exact))
    far = far / np.float32(math.log(max_distance / exact)) * np.float32(buckets - exact)
    far = np.minimum(exact + far.astype(np.int32), buckets - 1)
    return np.where(distances < exact, distances, far).astype(np.int32)


class T5Attention(Container):
    """Multi-head attention without scaling; the first layer's holds the table of position biases."""

    def __init__(self, config: Any, *, positions: bool = False) -> None:
        super().__init__()
        size, inner, factor = config.d_model, config.num_heads * config.d_kv, config.initializer_factor
        std = factor * size**-0.5
        self.q = Linear(size, inner, bias=False, std=factor * (size * config.d_kv) ** -0.5)
        self.k = Linear(size, inner, bias=False, std=std)
        self.v = Linear(size, inner, bias=False, std=std)
        self.o = Linear(inner, size, bias=False, std=factor * inner**-0.5)
        self.relative_attention_bias = None
        if positions:
            self.relative_attention_bias = Embedding(
                config.relative_attention_num_buckets, config.num_heads, std=std
            )
        self.dropout = keras.layers.Dropout(config.dropout_rate)
        self._heads = config.num_heads

    def keys_values(self, states: Tensor) -> Tensors:
        """Keys and values, (N, h, S, d), of states, (N, S, H)."""
        return split_heads(self.k(states), self._heads), split_heads(self.v(states), self._heads)

    def call(self, states: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, H) to the same, and attention weights, (N, h, T, S)."""
        attended, weights = attend(split_heads(self.q(states), self._heads), key, value, bias, self.dropout)
        return self.o(attended), weights


class T5Sublayer(Container):
    """What the sublayers of a block share: a norm before, dropout and a residual connection after."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = keras.layers.Dropout(config.dropout_rate)

    def residual(self, states: Tensor, output: Tensor) -> Tensor:
        """Add a sublayer's output to its input, both (N, T, H)."""
        return within_range(states + self.dropout(output))


class T5LayerSelfAttention(T5Sublayer):
    """Attention to the decoder's or encoder's own tokens."""

    def __init__(self, config: Any, *, positions: bool) -> None:
        super().__init__(config)
        self.SelfAttention = T5Attention(config, positions=positions)

    def call(self, states: Tensor, bias: Tensor, earlier: Tensors | None = None) -> Tensors:
        """(N, T, H) to the same, attention weights, keys and values."""
        normal = self.layer_norm(states)
        keys_values = append(earlier, self.SelfAttention.keys_values(normal))
        attended, weights = self.SelfAttention(normal, *keys_values, bias)
        return self.residual(states, attended), weights, *keys_values


class T5LayerCrossAttention(T5Sublayer):
    """Attention to the contexts."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.EncDecAttention = T5Attention(config)

    def call(self, states: Tensor, cross: Tensors, bias: Tensor) -> tuple[Tensor, Tensor]:
        """(N*R, T, H) to the same, and attention weights, (N, h, R*T, S)."""
        attended, weights = attend_to_contexts(self.EncDecAttention, self.layer_norm(states), cross, bias)
        return self.residual(states, attended), weights


class T5FeedForward(Container):
    """The feed-forward network, gated or not."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, wide, factor = config.d_model, config.d_ff, config.initializer_factor
        std = factor * size**-0.5
        if config.is_gated_act:
            self.wi_0 = Linear(size, wide, bias=False, std=std)
            self.wi_1 = Linear(size, wide, bias=False, std=std)
        else:
            self.wi = Linear(size, wide, bias=False, std=std)
        self.wo = Linear(wide, size, bias=False, std=factor * wide**-0.5)
        self.dropout = keras.layers.Dropout(config.dropout_rate)
        self._gated = config.is_gated_act
        self._activation = activation(config.dense_act_fn)

    def call(self, states: Tensor) -> Tensor:
        """(N, T, H) to the same."""
        if self._gated:
            wide = self._activation(self.wi_0(states)) * self.wi_1(states)
        else:
            wide = self._activation(self.wi(states))
        return self.wo(self.dropout(wide))


class T5LayerFF(T5Sublayer):
    """The feed-forward network with its norm."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.DenseReluDense = T5FeedForward(config)

    def call(self, states: Tensor) -> Tensor:
        """(N, T, H) to the same."""
        return self.residual(states, self.DenseReluDense(self.layer_norm(states)))


class T5Block(Container):
    """One layer of encoder or decoder."""

    def __init__(self, config: Any, *, decoder: bool, positions: bool) -> None:
        super().__init__()
        cross = [T5LayerCrossAttention(config)] if decoder else []
        self.layer: list[Any] = [T5LayerSelfAttention(config, positions=positions), *cross, T5LayerFF(config)]

    def call(
        self,
        states: Tensor,
        bias: Tensor,
        cross: Tensors | None = None,
        cross_bias: Tensor = None,
        earlier: Tensors | None = None,
    ) -> Tensors:
        """Run one layer; see `ragweave.tf.encoder_decoder.run_decoder_layers`."""
        states, weights, *keys_values = self.layer[0](states, bias, earlier)
        cross_weights = None
        if cross is not None:
            states, cross_weights = self.layer[1](states, cross, cross_bias)
        return self.layer[-1](states), weights, cross_weights, *keys_values


class T5Stack(Container):
    """Encoder or decoder; ``embed_tokens`` is set if a checkpoint has separate word embeddings for it."""

    def __init__(self, config: Any, blocks: int, *, decoder: bool) -> None:
        super().__init__()
        self.embed_tokens: Embedding | None = None
        self.block = [T5Block(config, decoder=decoder, positions=number == 0) for number in range(blocks)]
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = keras.layers.Dropout(config.dropout_rate)
        buckets = config.relative_attention_num_buckets
        self._decoder = decoder
        self._max_distance = config.relative_attention_max_distance
        self._buckets = buckets if decoder else buckets // 2  # those of one direction
        self._bucket_of = bucket_table(self._buckets, self._max_distance)

    def position_bias(self, queries: int, keys: int, offset: Any) -> Tensor:
        """What positions add to scores of queries behind ``offset`` earlier ones: (1, h, queries, keys), float32."""
        query = ops.arange(queries, dtype="int32") + offset
        relative = ops.arange(keys, dtype="int32")[None, :] - query[:, None]  # (queries, keys)
        distance = ops.maximum(-relative, 0) if self._decoder else ops.abs(relative)
        bucket = ops.take(self._bucket_of, ops.minimum(distance, self._max_distance), axis=0)
        if not self._decoder:
            bucket = bucket + ops.where(relative > 0, self._buckets, 0)
        table = self.block[0].layer[0].SelfAttention.relative_attention_bias
        return ops.cast(ops.transpose(table(bucket), (2, 0, 1)), "float32")[None]

    def call(
        self,
        embedded: Tensor,
        bias: Tensor,
        cross: CrossKeys | None = None,
        cross_bias: Tensor = None,
        past: DecoderCache | None = None,
    ) -> tuple[list[Tensor], ...]:
        """(N, T, H) to the output of `run_layers` or `run_decoder_layers`."""
        offset = 0 if past is None else past.length
        bias = bias + self.position_bias(ops.shape(embedded)[1], ops.shape(bias)[-1], offset)
        states = self.dropout(embedded)
        if cross is None:
            outputs: tuple[list[Tensor], ...] = run_layers(self.block, states, bias)
        else:
            outputs = run_decoder_layers(self.block, states, bias, cross, cross_bias, past)
        outputs[0][-1] = self.dropout(self.final_layer_norm(outputs[0][-1]))
        return outputs


class T5ForConditionalGeneration(EncoderDecoder):
    """T5 with its language-model head.

    transformers ties the head of every model that it creates, and scales the head's input unless the configuration
    was written with ``tie_word_embeddings=false`` (T5 1.1, Flan-T5). Checkpoints of those have a separate head, which
    stays separate when they are loaded, here as there.

    Args:
        config: transformers' T5Config.

    Raises:
        ConfigurationError: Its activation is not supported.
    """

    base_model_prefix = "transformer"
    tied: ClassVar[dict[str, str]] = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
        "lm_head.weight": "shared.weight",
    }

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.shared = self.new_embedding()
        self.encoder = T5Stack(config, config.num_layers, decoder=False)
        self.decoder = T5Stack(config, config.num_decoder_layers, decoder=True)

    @property
    def core(self) -> T5ForConditionalGeneration:
        """The layer with ``shared``, ``encoder`` and ``decoder``."""
        return self

    @property
    def cross_attentions(self) -> list[T5Attention]:
        """The layers that attend to contexts."""
        return [block.layer[1].EncDecAttention for block in self.decoder.block]

    def new_embedding(self) -> Embedding:
        """A table of word embeddings with fresh weights."""
        return Embedding(self.config.vocab_size, self.config.d_model, std=self.config.initializer_factor)

    def logits(self, states: Tensor) -> Tensor:
        """The decoder's states, (N*R, T, H), to (N*R, T, V); scaled where the head was trained this way."""
        if self.config.scale_decoder_outputs:
            states = states * ops.cast(self.config.d_model**-0.5, states.dtype)
        return super().logits(states)
