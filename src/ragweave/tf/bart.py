"""BART (Lewis et al. 2019, arXiv 1910.13461). Attribute paths are the names of the checkpoints' weights.

Notation used for tensor shapes: as in `ragweave.tf.encoder_decoder`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
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
    LayerNorm,
    Linear,
    Tensors,
    activation,
    attend,
    run_layers,
    split_heads,
    within_range,
)

# The first rows of the table of positions are not used.
POSITION_OFFSET = 2


class BartAttention(Container):
    """Multi-head attention with projections."""

    def __init__(self, config: Any, heads: int) -> None:
        super().__init__()
        size, std = config.d_model, config.init_std
        self.k_proj = Linear(size, size, std=std)
        self.v_proj = Linear(size, size, std=std)
        self.q_proj = Linear(size, size, std=std)
        self.out_proj = Linear(size, size, std=std)
        self.dropout = keras.layers.Dropout(config.attention_dropout)
        self._heads = heads
        self._scale = (size // heads) ** -0.5

    def keys_values(self, states: Tensor) -> Tensors:
        """Keys and values, (N, h, S, d), of states, (N, S, H)."""
        return split_heads(self.k_proj(states), self._heads), split_heads(self.v_proj(states), self._heads)

    def call(self, states: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, H) to the same, and attention weights, (N, h, T, S)."""
        query = split_heads(self.q_proj(states) * self._scale, self._heads)
        attended, weights = attend(query, key, value, bias, self.dropout)
        return self.out_proj(attended), weights


class BartLayer(Container):
    """What layers of encoder and decoder share: self-attention and the feed-forward network."""

    def __init__(self, config: Any, heads: int, feed_forward_size: int) -> None:
        super().__init__()
        self.self_attn = BartAttention(config, heads)
        self.self_attn_layer_norm = LayerNorm(config.d_model)
        self.fc1 = Linear(config.d_model, feed_forward_size, std=config.init_std)
        self.fc2 = Linear(feed_forward_size, config.d_model, std=config.init_std)
        self.final_layer_norm = LayerNorm(config.d_model)
        self.dropout = keras.layers.Dropout(config.dropout)
        self.activation_dropout = keras.layers.Dropout(config.activation_dropout)
        self._activation = activation(config.activation_function)

    def attend_to_own(
        self, states: Tensor, bias: Tensor, earlier: Tensors | None = None
    ) -> tuple[Tensor, Tensor, Tensors]:
        """Self-attention: states, (N, T, H), attention weights, and keys and values."""
        keys_values = append(earlier, self.self_attn.keys_values(states))
        attended, weights = self.self_attn(states, *keys_values, bias)
        return self.self_attn_layer_norm(states + self.dropout(attended)), weights, keys_values

    def feed_forward(self, states: Tensor) -> Tensor:
        """(N, T, H) to the same."""
        wide = self.activation_dropout(self._activation(self.fc1(states)))
        return self.final_layer_norm(states + self.dropout(self.fc2(wide)))


class BartEncoderLayer(BartLayer):
    """One layer of the encoder."""

    def call(self, states: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """(N, S, H) to the same, and attention weights."""
        states, weights, _ = self.attend_to_own(states, bias)
        return within_range(self.feed_forward(states)), weights


class BartDecoderLayer(BartLayer):
    """One layer of the decoder."""

    def __init__(self, config: Any, heads: int, feed_forward_size: int) -> None:
        super().__init__(config, heads, feed_forward_size)
        self.encoder_attn = BartAttention(config, heads)
        self.encoder_attn_layer_norm = LayerNorm(config.d_model)

    def call(
        self, states: Tensor, bias: Tensor, cross: Tensors, cross_bias: Tensor, earlier: Tensors | None = None
    ) -> Tensors:
        """Decode one layer; see `ragweave.tf.encoder_decoder.run_decoder_layers`."""
        states, weights, keys_values = self.attend_to_own(states, bias, earlier)
        attended, cross_weights = attend_to_contexts(self.encoder_attn, states, cross, cross_bias)
        states = self.encoder_attn_layer_norm(states + self.dropout(attended))
        return self.feed_forward(states), weights, cross_weights, *keys_values


class BartStack(Container):
    """Encoder or decoder; ``embed_tokens`` is set if a checkpoint has separate word embeddings for it."""

    def __init__(self, config: Any, layers: list[Any]) -> None:
        super().__init__()
        self.embed_tokens: Embedding | None = None
        self.embed_positions = Embedding(
            config.max_position_embeddings + POSITION_OFFSET, config.d_model, std=config.init_std
        )
        self.layers = layers
        self.layernorm_embedding = LayerNorm(config.d_model)
        self.dropout = keras.layers.Dropout(config.dropout)

    def call(
        self,
        embedded: Tensor,
        bias: Tensor,
        cross: CrossKeys | None = None,
        cross_bias: Tensor = None,
        past: DecoderCache | None = None,
    ) -> tuple[list[Tensor], ...]:
        """(N, T, H) to the output of `run_layers` or `run_decoder_layers`."""
        positions = ops.arange(ops.shape(embedded)[1], dtype="int32") + POSITION_OFFSET
        if past is not None:
            positions = positions + past.length
        states = self.dropout(self.layernorm_embedding(embedded + self.embed_positions(positions)))
        if cross is None:
            return run_layers(self.layers, states, bias)
        return run_decoder_layers(self.layers, states, bias, cross, cross_bias, past)


class BartModel(Container):
    """Encoder, decoder and the word embeddings of both."""

    def __init__(self, config: Any, shared: Embedding) -> None:
        super().__init__()
        encoder_sizes = config.encoder_attention_heads, config.encoder_ffn_dim
        decoder_sizes = config.decoder_attention_heads, config.decoder_ffn_dim
        self.shared = shared
        self.encoder = BartStack(
            config, [BartEncoderLayer(config, *encoder_sizes) for _ in range(config.encoder_layers)]
        )
        self.decoder = BartStack(
            config, [BartDecoderLayer(config, *decoder_sizes) for _ in range(config.decoder_layers)]
        )


class BartForConditionalGeneration(EncoderDecoder):
    """BART with its language-model head.

    Args:
        config: transformers' BartConfig.

    Raises:
        ConfigurationError: Its activation is not supported.
    """

    base_model_prefix = "model"
    optional: ClassVar[tuple[str, ...]] = ("final_logits_bias",)
    tied: ClassVar[dict[str, str]] = {
        "model.encoder.embed_tokens.weight": "model.shared.weight",
        "model.decoder.embed_tokens.weight": "model.shared.weight",
        "lm_head.weight": "model.shared.weight",
    }

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = BartModel(config, self.new_embedding())
        self.final_logits_bias = self.add_weight(
            shape=(1, config.vocab_size), initializer="zeros", trainable=False, name="final_logits_bias"
        )
        if not config.tie_word_embeddings:
            for name in self.tied:
                self.untie(name)

    @property
    def core(self) -> BartModel:
        """The layer with ``shared``, ``encoder`` and ``decoder``."""
        return self.model

    @property
    def cross_attentions(self) -> list[BartAttention]:
        """The layers that attend to contexts."""
        return [layer.encoder_attn for layer in self.model.decoder.layers]

    def new_embedding(self) -> Embedding:
        """A table of word embeddings with fresh weights."""
        config = self.config
        return Embedding(
            config.vocab_size,
            config.d_model,
            padding=config.pad_token_id,
            scale=config.d_model**0.5 if config.scale_embedding else 1.0,
            std=config.init_std,
        )

    def logits(self, states: Tensor) -> Tensor:
        """The decoder's states, (N*R, T, H), to (N*R, T, V); BART's checkpoints may have a bias."""
        product = super().logits(states)
        return product + ops.cast(self.final_logits_bias, product.dtype)
