"""T5 (Raffel et al. 2019, arXiv 1910.10683), plain and gated. Attribute paths are the names of checkpoints' weights.

Notation used for tensor shapes
    N contexts, R rows per context, S context tokens, T decoder tokens, L tokens that a cache has room for,
    H size of a state, h heads, d size of a head, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from ragweave.tf.layers import (
    Container,
    Embedding,
    Linear,
    ScaleNorm,
    activation,
    attend,
    hidden_keys,
    split_heads,
    within_range,
)
from ragweave.tf.networks import DecoderCache, Encoded, write
from ragweave.tf.seq2seq import CrossKeys, Seq2SeqGenerator


def bucket_table(buckets: int, max_distance: int) -> np.ndarray:
    """The bucket of every distance from 0 to ``max_distance``, beyond which there is only the last.

    Half of the buckets are for one distance each; the others grow with the distance's logarithm. Worked out once
    and in float32, since some distances lie right on a bucket's border.

    Args:
        buckets: Number of buckets, those of one direction.
        max_distance: The distance from which on all are in the last bucket.
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
        self.q = Linear(size, inner, bias=False, std=factor * (size * config.d_kv) ** -0.5)
        self.k = Linear(size, inner, bias=False, std=factor * size**-0.5)
        self.v = Linear(size, inner, bias=False, std=factor * size**-0.5)
        self.o = Linear(inner, size, bias=False, std=factor * inner**-0.5)
        self.relative_attention_bias = None
        if positions:
            self.relative_attention_bias = Embedding(
                config.relative_attention_num_buckets, config.num_heads, std=factor * size**-0.5
            )
        self.dropout = keras.layers.Dropout(config.dropout_rate)
        self._heads = config.num_heads
        self.built = True

    def keys_values(self, states: Any) -> tuple[Any, Any]:
        """Keys and values, (N, h, S, d), of states, (N, S, H)."""
        return split_heads(self.k(states), self._heads), split_heads(self.v(states), self._heads)

    def call(self, states: Any, key: Any, value: Any, bias: Any) -> tuple[Any, Any]:
        """(N, T, H) to the same, and attention weights, (N, h, T, S)."""
        found, weights = attend(split_heads(self.q(states), self._heads), key, value, bias, self.dropout)
        return self.o(found), weights


class T5LayerSelfAttention(Container):
    """Attention to own tokens."""

    def __init__(self, config: Any, *, positions: bool) -> None:
        super().__init__()
        self.SelfAttention = T5Attention(config, positions=positions)
        self.layer_norm = ScaleNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = keras.layers.Dropout(config.dropout_rate)
        self.built = True

    def call(
        self, states: Any, bias: Any, past_key: Any = None, past_value: Any = None, past_length: Any = None
    ) -> tuple[Any, ...]:
        """(N, T, H) to the same; keys, values and attention weights. Arguments as for BART's decoder layer."""
        normal = self.layer_norm(states)
        key, value = self.SelfAttention.keys_values(normal)
        if past_key is not None:
            key, value = write(past_key, key, past_length), write(past_value, value, past_length)
        found, weights = self.SelfAttention(normal, key, value, bias)
        return within_range(states + self.dropout(found)), key, value, weights


class T5LayerCrossAttention(Container):
    """Attention to the context, whose keys R rows share."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.EncDecAttention = T5Attention(config)
        self.layer_norm = ScaleNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = keras.layers.Dropout(config.dropout_rate)
        self.built = True

    def call(self, states: Any, key: Any, value: Any, bias: Any) -> tuple[Any, Any]:
        """(N*R, T, H) to the same, and attention weights, (N, h, R*T, S)."""
        rows, tokens, size = ops.shape(states)
        folded = ops.reshape(self.layer_norm(states), (ops.shape(key)[0], -1, size))  # (N, R*T, H)
        found, weights = self.EncDecAttention(folded, key, value, bias)
        return within_range(states + self.dropout(ops.reshape(found, (rows, tokens, size)))), weights


class T5Wide(Container):
    """The wide layers, gated or not."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, wide, factor = config.d_model, config.d_ff, config.initializer_factor
        self.wi: Any = None
        self.wi_0: Any = None
        self.wi_1: Any = None
        if config.is_gated_act:
            self.wi_0 = Linear(size, wide, bias=False, std=factor * size**-0.5)
            self.wi_1 = Linear(size, wide, bias=False, std=factor * size**-0.5)
        else:
            self.wi = Linear(size, wide, bias=False, std=factor * size**-0.5)
        self.wo = Linear(wide, size, bias=False, std=factor * wide**-0.5)
        self.dropout = keras.layers.Dropout(config.dropout_rate)
        self._activation = activation(config.dense_act_fn)
        self.built = True

    def call(self, states: Any) -> Any:
        """(N, T, H) to the same."""
        if self.wi is None:
            wide = self._activation(self.wi_0(states)) * self.wi_1(states)
        else:
            wide = self._activation(self.wi(states))
        return self.wo(self.dropout(wide))


class T5LayerFF(Container):
    """The wide layers with their norm."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.DenseReluDense = T5Wide(config)
        self.layer_norm = ScaleNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = keras.layers.Dropout(config.dropout_rate)
        self.built = True

    def call(self, states: Any) -> Any:
        """(N, T, H) to the same."""
        return within_range(states + self.dropout(self.DenseReluDense(self.layer_norm(states))))


class T5Block(Container):
    """One layer of encoder or decoder."""

    def __init__(self, config: Any, *, decoder: bool, positions: bool) -> None:
        super().__init__()
        cross = [T5LayerCrossAttention(config)] if decoder else []
        self.layer: list[Any] = [T5LayerSelfAttention(config, positions=positions), *cross, T5LayerFF(config)]
        self.built = True

    def call(
        self,
        states: Any,
        bias: Any,
        cross_key: Any = None,
        cross_value: Any = None,
        cross_bias: Any = None,
        past_key: Any = None,
        past_value: Any = None,
        past_length: Any = None,
    ) -> tuple[Any, ...]:
        """States, keys and values of own tokens, attention weights, cross attention weights; as BART's layers."""
        states, key, value, weights = self.layer[0](
            states, bias, past_key=past_key, past_value=past_value, past_length=past_length
        )
        cross_weights = None
        if cross_key is not None:
            states, cross_weights = self.layer[1](states, cross_key, cross_value, cross_bias)
        return self.layer[-1](states), key, value, weights, cross_weights


class T5Stack(Container):
    """Encoder or decoder; it has word embeddings of its own where a checkpoint has."""

    def __init__(self, config: Any, blocks: int, *, decoder: bool) -> None:
        super().__init__()
        self.embed_tokens: Embedding | None = None
        self.block = [T5Block(config, decoder=decoder, positions=number == 0) for number in range(blocks)]
        self.final_layer_norm = ScaleNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = keras.layers.Dropout(config.dropout_rate)
        self._decoder = decoder
        buckets = config.relative_attention_num_buckets
        self._max_distance = config.relative_attention_max_distance
        self._one_way = buckets if decoder else buckets // 2
        self._buckets = bucket_table(self._one_way, self._max_distance)
        self.built = True

    def position_bias(self, queries: int, keys: int, at: Any = 0) -> Any:
        """What positions add to scores of queries, of which ``at`` went before: (1, h, queries, keys), float32."""
        query = ops.arange(queries, dtype="int32") + at
        relative = ops.arange(keys, dtype="int32")[None, :] - query[:, None]  # (queries, keys)
        distance = ops.maximum(-relative, 0) if self._decoder else ops.abs(relative)
        bucket = ops.take(self._buckets, ops.minimum(distance, self._max_distance), axis=0)
        if not self._decoder:
            bucket = bucket + ops.where(relative > 0, self._one_way, 0)
        table = self.block[0].layer[0].SelfAttention.relative_attention_bias
        return ops.cast(ops.transpose(table(bucket), (2, 0, 1)), "float32")[None]

    def call(
        self,
        embedded: Any,
        bias: Any,
        cross: CrossKeys | None = None,
        cross_bias: Any = None,
        past: DecoderCache | None = None,
    ) -> tuple[list[Any], ...]:
        """(N, T, H) to lists over blocks; see `Seq2SeqGenerator.run_decoder`."""
        found: tuple[list[Any], ...] = ([self.dropout(embedded)], [], [], [], [])
        for number, block in enumerate(self.block):
            arguments: dict[str, Any] = {}
            if cross is not None:
                arguments = {
                    "cross_key": cross[0][number],
                    "cross_value": cross[1][number],
                    "cross_bias": cross_bias,
                }
            if past is not None:
                arguments |= {
                    "past_key": past.keys[number],
                    "past_value": past.values[number],
                    "past_length": past.length,
                }
            outputs = block(found[0][-1], bias, **arguments)
            for own, output in zip(found, outputs, strict=True):
                own.append(output)
        found[0][-1] = self.dropout(self.final_layer_norm(found[0][-1]))
        return found


class T5ForConditionalGeneration(Seq2SeqGenerator):
    """T5 with its language-model head.

    transformers ties the head of every model that it makes, and scales what goes into it unless the configuration
    was written with ``tie_word_embeddings=false`` (T5 1.1, Flan-T5). Checkpoints of those have a head of their own,
    which stays apart when they are loaded, here as there.

    Args:
        config: transformers' T5Config.

    Raises:
        ConfigurationError: Its activation is not supported.
    """

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
        self.built = True

    @property
    def shared_embedding(self) -> Embedding:
        """The table of word embeddings."""
        return self.shared

    @property
    def encoder_stack(self) -> T5Stack:
        """The encoder."""
        return self.encoder

    @property
    def decoder_stack(self) -> T5Stack:
        """The decoder."""
        return self.decoder

    def new_embedding(self) -> Embedding:
        """A table of word embeddings with fresh weights."""
        return Embedding(self.config.vocab_size, self.config.d_model, std=self.config.initializer_factor)

    def encode(
        self,
        input_ids: Any,
        attention_mask: Any,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Encoded:
        """Encode N contexts, (N, S), with their mask, (N, S)."""
        tokens = ops.shape(input_ids)[1]
        bias = self.encoder.position_bias(tokens, tokens) + hidden_keys(attention_mask)
        hidden, _, _, attentions, _ = self.encoder(self.embed(self.encoder, input_ids), bias)
        return Encoded(
            last_hidden_state=hidden[-1],
            hidden_states=tuple(hidden) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )

    def cross_keys_values(self, states: Any) -> CrossKeys:
        """Keys and values of contexts; see `Seq2SeqGenerator.cross_keys_values`."""
        found = [block.layer[1].EncDecAttention.keys_values(states) for block in self.decoder.block]
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
        """Run the decoder's blocks; see `Seq2SeqGenerator.run_decoder`."""
        positions = self.decoder.position_bias(ops.shape(embedded)[1], room, at)
        return self.decoder(
            embedded, positions + bias, cross=cross, cross_bias=hidden_keys(attention_mask), past=past
        )

    def head_input(self, states: Any) -> Any:
        """Scale states where the head was trained so."""
        if not self.config.scale_decoder_outputs:
            return states
        return states * ops.cast(self.config.d_model**-0.5, states.dtype)

    def finish_logits(self, product: Any) -> Any:
        """Logits are the product."""
        return product
