"""BART (Lewis et al. 2019, arXiv 1910.13461). Attribute paths are the names of the checkpoints' weights.

Notation used for tensor shapes
    N contexts, R rows per context, S context tokens, T decoder tokens, L tokens that a cache has room for,
    H size of a state, h heads, d size of a head, V vocabulary.
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from ragweave.tf.layers import (
    Container,
    Embedding,
    LayerNorm,
    Linear,
    activation,
    attend,
    hidden_keys,
    split_heads,
    within_range,
)
from ragweave.tf.networks import DecoderCache, Encoded, write
from ragweave.tf.seq2seq import CrossKeys, Seq2SeqGenerator

# Rows of the table of positions that no position uses.
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
        self.built = True

    def keys_values(self, states: Any) -> tuple[Any, Any]:
        """Keys and values, (N, h, S, d), of states, (N, S, H)."""
        return split_heads(self.k_proj(states), self._heads), split_heads(self.v_proj(states), self._heads)

    def call(self, states: Any, key: Any, value: Any, bias: Any) -> tuple[Any, Any]:
        """(N, T, H) to the same, and attention weights, (N, h, T, S)."""
        query = split_heads(self.q_proj(states) * self._scale, self._heads)
        found, weights = attend(query, key, value, bias, self.dropout)
        return self.out_proj(found), weights


class BartLayer(Container):
    """What layers of encoder and decoder share: self-attention and the wide layers."""

    def __init__(self, config: Any, heads: int, wide: int) -> None:
        super().__init__()
        self.self_attn = BartAttention(config, heads)
        self.self_attn_layer_norm = LayerNorm(config.d_model)
        self.fc1 = Linear(config.d_model, wide, std=config.init_std)
        self.fc2 = Linear(wide, config.d_model, std=config.init_std)
        self.final_layer_norm = LayerNorm(config.d_model)
        self.dropout = keras.layers.Dropout(config.dropout)
        self.activation_dropout = keras.layers.Dropout(config.activation_dropout)
        self._activation = activation(config.activation_function)
        self.built = True

    def feed_forward(self, states: Any) -> Any:
        """(N, T, H) to the same."""
        wide = self.activation_dropout(self._activation(self.fc1(states)))
        return self.final_layer_norm(states + self.dropout(self.fc2(wide)))


class BartEncoderLayer(BartLayer):
    """One layer of the encoder."""

    def call(self, states: Any, bias: Any) -> tuple[Any, Any]:
        """(N, S, H) to the same, and attention weights."""
        found, weights = self.self_attn(states, *self.self_attn.keys_values(states), bias)
        states = self.self_attn_layer_norm(states + self.dropout(found))
        return within_range(self.feed_forward(states)), weights


class BartDecoderLayer(BartLayer):
    """One layer of the decoder: its own tokens, then the context."""

    def __init__(self, config: Any) -> None:
        super().__init__(config, config.decoder_attention_heads, config.decoder_ffn_dim)
        self.encoder_attn = BartAttention(config, config.decoder_attention_heads)
        self.encoder_attn_layer_norm = LayerNorm(config.d_model)

    def call(
        self,
        states: Any,
        cross_key: Any,
        cross_value: Any,
        bias: Any,
        cross_bias: Any,
        past_key: Any = None,
        past_value: Any = None,
        past_length: Any = None,
    ) -> tuple[Any, ...]:
        """Decode one layer.

        Args:
            states: (N*R, T, H).
            cross_key: Keys of the contexts, (N, h, S, d); their R rows share them.
            cross_value: Values of the contexts.
            bias: Added to scores of own tokens, to be broadcast to (N*R, h, T, L).
            cross_bias: Added to scores of contexts, (N, 1, 1, S).
            past_key: Keys of earlier tokens, (N*R, h, L, d).
            past_value: Their values.
            past_length: How many of them are filled.

        Returns:
            States, keys and values of own tokens, attention weights, cross attention weights (N, h, R*T, S).
        """
        key, value = self.self_attn.keys_values(states)
        if past_key is not None:
            key, value = write(past_key, key, past_length), write(past_value, value, past_length)
        found, weights = self.self_attn(states, key, value, bias)
        states = self.self_attn_layer_norm(states + self.dropout(found))
        rows, tokens, size = ops.shape(states)
        folded = ops.reshape(states, (ops.shape(cross_key)[0], -1, size))  # (N, R*T, H)
        found, cross_weights = self.encoder_attn(folded, cross_key, cross_value, cross_bias)
        found = ops.reshape(found, (rows, tokens, size))
        states = self.encoder_attn_layer_norm(states + self.dropout(found))
        return self.feed_forward(states), key, value, weights, cross_weights


class BartEncoder(Container):
    """The encoder; it has word embeddings of its own where a checkpoint has."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embed_tokens: Embedding | None = None
        self.embed_positions = _positions(config)
        self.layers = [
            BartEncoderLayer(config, config.encoder_attention_heads, config.encoder_ffn_dim)
            for _ in range(config.encoder_layers)
        ]
        self.layernorm_embedding = LayerNorm(config.d_model)
        self.dropout = keras.layers.Dropout(config.dropout)
        self.built = True

    def call(self, embedded: Any, bias: Any) -> tuple[list[Any], list[Any]]:
        """(N, S, H) to the states before, between and behind the layers, and attention weights."""
        positions = ops.arange(ops.shape(embedded)[1], dtype="int32") + POSITION_OFFSET
        states = self.dropout(self.layernorm_embedding(embedded + self.embed_positions(positions)))
        hidden, attentions = [states], []
        for layer in self.layers:
            states, weights = layer(states, bias)
            hidden.append(states)
            attentions.append(weights)
        return hidden, attentions


class BartDecoder(Container):
    """The decoder; it has word embeddings of its own where a checkpoint has."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embed_tokens: Embedding | None = None
        self.embed_positions = _positions(config)
        self.layers = [BartDecoderLayer(config) for _ in range(config.decoder_layers)]
        self.layernorm_embedding = LayerNorm(config.d_model)
        self.dropout = keras.layers.Dropout(config.dropout)
        self.built = True

    def call(
        self,
        embedded: Any,
        cross: CrossKeys,
        bias: Any,
        cross_bias: Any,
        at: Any = 0,
        past: DecoderCache | None = None,
    ) -> tuple[list[Any], ...]:
        """(N*R, T, H) to lists over layers; see `Seq2SeqGenerator.run_decoder`."""
        positions = ops.arange(ops.shape(embedded)[1], dtype="int32") + at + POSITION_OFFSET
        states = self.dropout(self.layernorm_embedding(embedded + self.embed_positions(positions)))
        found: tuple[list[Any], ...] = ([states], [], [], [], [])
        for number, layer in enumerate(self.layers):
            earlier = {}
            if past is not None:
                earlier = {
                    "past_key": past.keys[number],
                    "past_value": past.values[number],
                    "past_length": at,
                }
            outputs = layer(
                found[0][-1], cross[0][number], cross[1][number], bias=bias, cross_bias=cross_bias, **earlier
            )
            for own, output in zip(found, outputs, strict=True):
                own.append(output)
        return found


class BartModel(Container):
    """Encoder, decoder and the word embeddings of both."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.shared = _words(config)
        self.encoder = BartEncoder(config)
        self.decoder = BartDecoder(config)
        self.built = True


class BartForConditionalGeneration(Seq2SeqGenerator):
    """BART with its language-model head.

    Args:
        config: transformers' BartConfig.

    Raises:
        ConfigurationError: Its activation is not supported.
    """

    base_model_prefix = "model"
    optional = ("final_logits_bias",)
    tied: ClassVar[dict[str, str]] = {
        "model.encoder.embed_tokens.weight": "model.shared.weight",
        "model.decoder.embed_tokens.weight": "model.shared.weight",
        "lm_head.weight": "model.shared.weight",
    }

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = BartModel(config)
        self.final_logits_bias = self.add_weight(
            shape=(1, config.vocab_size), initializer="zeros", trainable=False, name="final_logits_bias"
        )
        if not config.tie_word_embeddings:
            for name in self.tied:
                self.untie(name)
        self.built = True

    @property
    def shared_embedding(self) -> Embedding:
        """The table of word embeddings."""
        return self.model.shared

    @property
    def encoder_stack(self) -> BartEncoder:
        """The encoder."""
        return self.model.encoder

    @property
    def decoder_stack(self) -> BartDecoder:
        """The decoder."""
        return self.model.decoder

    def new_embedding(self) -> Embedding:
        """A table of word embeddings with fresh weights."""
        return _words(self.config)

    def encode(
        self,
        input_ids: Any,
        attention_mask: Any,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Encoded:
        """Encode N contexts, (N, S), with their mask, (N, S)."""
        embedded = self.embed(self.model.encoder, input_ids)
        hidden, attentions = self.model.encoder(embedded, hidden_keys(attention_mask))
        return Encoded(
            last_hidden_state=hidden[-1],
            hidden_states=tuple(hidden) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )

    def cross_keys_values(self, states: Any) -> CrossKeys:
        """Keys and values of contexts; see `Seq2SeqGenerator.cross_keys_values`."""
        found = [layer.encoder_attn.keys_values(states) for layer in self.model.decoder.layers]
        return tuple(key for key, _ in found), tuple(value for _, value in found)

    def run_decoder(
        self,
        embedded: Any,
        cross: CrossKeys,
        attention_mask: Any,
        *,
        bias: Any,
        at: Any,
        room: int,
        past: DecoderCache | None,
    ) -> tuple[list[Any], ...]:
        """Run the decoder's layers; see `Seq2SeqGenerator.run_decoder`."""
        return self.model.decoder(
            embedded, cross, bias=bias, cross_bias=hidden_keys(attention_mask), at=at, past=past
        )

    def finish_logits(self, product: Any) -> Any:
        """Add the bias that BART's checkpoints may have."""
        return product + ops.cast(self.final_logits_bias, product.dtype)


def _words(config: Any) -> Embedding:
    return Embedding(
        config.vocab_size,
        config.d_model,
        padding=config.pad_token_id,
        scale=config.d_model**0.5 if config.scale_embedding else 1.0,
        std=config.init_std,
    )


def _positions(config: Any) -> Embedding:
    return Embedding(config.max_position_embeddings + POSITION_OFFSET, config.d_model, std=config.init_std)
