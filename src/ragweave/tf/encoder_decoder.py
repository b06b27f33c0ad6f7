"""What BART and T5 share: encoding, decoding with a cache, and a head that may be the table of word embeddings.

Notation used for tensor shapes
    N contexts, R rows per context (beams, samples, hypotheses), S context tokens, T decoder tokens, L tokens that a
    cache has room for, H size of a state, h heads, d size of a head, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from keras import ops
from transformers import GenerationConfig

from ragweave.tf.keras_backend import Tensor, multiply_transposed
from ragweave.tf.layers import HIDDEN, Embedding, Encoded, Linear, Network, Tensors, hidden_keys

CrossKeys = tuple[Tensors, Tensors]
"""Keys and values of the contexts, (N, h, S, d) for each layer; R rows share them."""


class DecoderCache(NamedTuple):
    """Keys and values of a decoder's layers. Their shapes stay the same from step to step, so graphs are reused.

    Attributes:
        keys: Keys of decoder tokens, (N*R, h, L, d) for each layer; positions from ``length`` on are empty.
        values: Their values.
        cross: Keys and values of the contexts.
        length: Number of decoder tokens in the cache, an int32 scalar.
    """

    keys: Tensors
    values: Tensors
    cross: CrossKeys
    length: Tensor

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


@dataclass
class Decoded:
    """What a decoder with its head returns.

    Attributes:
        logits: (N*R, T, V).
        cache: Keys and values to continue from, with ``use_cache``.
        hidden_states: Layer by layer, with ``output_hidden_states``.
        attentions: Layer by layer, with ``output_attentions``.
        cross_attentions: Layer by layer, (N*R, h, T, S), with ``output_attentions``.
    """

    logits: Tensor
    cache: DecoderCache | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    cross_attentions: Tensors | None = None


class EncoderDecoder(Network):
    """A generator with an encoder.

    Encoder, decoder and head share one table of word embeddings, unless `untie` gave one of them its own.

    Args:
        config: The configuration of transformers' class.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.generation_config = GenerationConfig.from_model_config(config)
        self.lm_head: Linear | None = None

    @property
    @abstractmethod
    def core(self) -> Any:
        """The layer with ``shared`` (word embeddings), ``encoder`` and ``decoder``."""

    @property
    @abstractmethod
    def cross_attentions(self) -> list[Any]:
        """The layers that attend to contexts."""

    def get_input_embeddings(self) -> Embedding:
        """The table of word embeddings that encoder and decoder share."""
        shared: Embedding = self.core.shared
        return shared

    def get_output_embeddings(self) -> Embedding | Linear:
        """The head: a layer of its own, or the table of word embeddings."""
        return self.get_input_embeddings() if self.lm_head is None else self.lm_head

    @abstractmethod
    def new_embedding(self) -> Embedding:
        """A table of word embeddings with fresh weights."""

    def untie(self, name: str) -> None:
        """Give a part of the network a table of its own.

        Args:
            name: The name of its weight, one of `tied`.
        """
        if name == "lm_head.weight":
            self.lm_head = Linear(self.config.d_model, self.config.vocab_size, bias=False)
        else:
            stack = self.core.encoder if "encoder." in name else self.core.decoder
            stack.embed_tokens = self.new_embedding()

    def embed(self, stack: Any, ids: Tensor) -> Tensor:
        """(N, T) to (N, T, H), with the table of the encoder or decoder."""
        return (self.core.shared if stack.embed_tokens is None else stack.embed_tokens)(ids)

    def encode(self, input_ids: Tensor, attention_mask: Tensor, **flags: bool) -> Encoded:
        """Encode N contexts, (N, S), with their mask, (N, S); flags as for `Encoded.from_layers`."""
        encoder = self.core.encoder
        hidden, attentions = encoder(self.embed(encoder, input_ids), hidden_keys(attention_mask))
        return Encoded.from_layers(attention_mask, hidden, attentions, **flags)

    def cross_keys_values(self, states: Tensor) -> CrossKeys:
        """Keys and values of contexts from the encoder's states, (N, S, H)."""
        keys, values = zip(*(layer.keys_values(states) for layer in self.cross_attentions), strict=True)
        return keys, values

    def empty_cache(self, cross: CrossKeys, rows: int, room: int) -> DecoderCache:
        """A cache for R rows under every context, with room for L tokens."""
        n, heads, _, size = ops.shape(cross[0][0])
        empty = tuple(ops.zeros((n * rows, heads, room, size), key.dtype) for key in cross[0])
        return DecoderCache(empty, empty, cross, ops.zeros((), "int32"))

    def decode(
        self,
        cross: CrossKeys,
        attention_mask: Tensor,
        decoder_input_ids: Tensor,
        *,
        decoder_attention_mask: Tensor = None,
        past: DecoderCache | None = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Decoded:
        """Decode R rows of T tokens under every context.

        Args:
            cross: Keys and values of the contexts.
            attention_mask: Mask of the contexts, (N, S).
            decoder_input_ids: (N*R, T), rows of a context next to each other.
            decoder_attention_mask: Mask of decoder tokens from the first on, (N*R, any).
            past: Cache of earlier decoder tokens, with room for these.
            use_cache: Return a cache.
            output_attentions: Return attentions.
            output_hidden_states: Return hidden states.
        """
        rows, tokens = ops.shape(decoder_input_ids)
        offset, room = (0, tokens) if past is None else (past.length, ops.shape(past.keys[0])[2])
        decoder = self.core.decoder
        hidden, attentions, cross_attentions, keys, values = decoder(
            self.embed(decoder, decoder_input_ids),
            causal_bias(tokens, room, offset, decoder_attention_mask),
            cross,
            hidden_keys(attention_mask),
            past,
        )
        decoded = Decoded(self.logits(hidden[-1]))
        if use_cache:
            length = ops.cast(offset + tokens, "int32")
            decoded.cache = DecoderCache(tuple(keys), tuple(values), cross, length)
        if output_hidden_states:
            decoded.hidden_states = tuple(hidden)
        if output_attentions:
            rows = rows // ops.shape(attention_mask)[0]
            decoded.attentions = tuple(attentions)
            decoded.cross_attentions = tuple(unfold_rows(weights, rows) for weights in cross_attentions)
        return decoded

    def logits(self, states: Tensor) -> Tensor:
        """The decoder's states, (N*R, T, H), to (N*R, T, V)."""
        return multiply_transposed(states, self.get_output_embeddings().weight)


def run_decoder_layers(
    layers: Iterable[Any],
    states: Tensor,
    bias: Tensor,
    cross: CrossKeys,
    cross_bias: Tensor,
    past: DecoderCache | None,
) -> tuple[list[Tensor], ...]:
    """Run a decoder's layers.

    Args:
        layers: From states, biases, keys and values to states, (N*R, T, H), attentions, (N*R, h, T, L), cross
            attentions, (N, h, R*T, S), and keys and values of decoder tokens, (N*R, h, L, d).
        states: Embedded tokens, (N*R, T, H).
        bias: Hides later tokens; added to scores, broadcast to (N*R, h, T, L).
        cross: Keys and values of the contexts.
        cross_bias: Hides padding of the contexts, (N, 1, 1, S).
        past: Cache of earlier tokens.

    Returns:
        Lists over layers of what a layer returns; the states before the first layer come first.
    """
    outputs: tuple[list[Tensor], ...] = ([states], [], [], [], [])
    for number, layer in enumerate(layers):
        earlier = None if past is None else (past.keys[number], past.values[number], past.length)
        output = layer(outputs[0][-1], bias, (cross[0][number], cross[1][number]), cross_bias, earlier)
        for collected, value in zip(outputs, output, strict=True):
            collected.append(value)
    return outputs


def append(earlier: Tensors | None, keys_values: Tensors) -> Tensors:
    """Keys and values of T new tokens, (N*R, h, T, d), written behind earlier ones, (N*R, h, L, d), if any.

    Args:
        earlier: Keys, values and how many of them are filled.
        keys_values: Keys and values of the new tokens.
    """
    if earlier is None:
        return keys_values
    *past, length = earlier
    return tuple(
        ops.slice_update(old, (0, 0, length, 0), ops.cast(new, old.dtype))
        for old, new in zip(past, keys_values, strict=True)
    )


def attend_to_contexts(
    attention: Any, states: Tensor, cross: Tensors, cross_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Attention of R rows per context, (N*R, T, H), to keys and values of N contexts.

    Rows are folded into the length of the queries, so that the R rows of a context share its keys and values, which
    are neither repeated nor read R times.

    Returns:
        States, (N*R, T, H), and attention weights, (N, h, R*T, S).
    """
    rows, tokens, size = ops.shape(states)
    folded = ops.reshape(states, (ops.shape(cross[0])[0], -1, size))  # (N, R*T, H)
    attended, weights = attention(folded, *cross, cross_bias)
    return ops.reshape(attended, (rows, tokens, size)), weights


def unfold_rows(weights: Tensor, rows: int) -> Tensor:
    """Cross attentions of R folded rows, (N, h, R*T, S), to (N*R, h, T, S)."""
    n, heads, queries, keys = ops.shape(weights)
    weights = ops.reshape(weights, (n, heads, rows, queries // rows, keys))
    return ops.reshape(ops.transpose(weights, (0, 2, 1, 3, 4)), (n * rows, heads, queries // rows, keys))


def causal_bias(tokens: int, room: int, offset: Any, decoder_attention_mask: Tensor = None) -> Tensor:
    """The bias that hides later tokens from T tokens: (1 or N*R, 1, T, L).

    Args:
        tokens: T.
        room: L.
        offset: Number of earlier tokens.
        decoder_attention_mask: Which tokens may be seen, (N*R, any); those behind it may.
    """
    queries = ops.arange(tokens, dtype="int32") + offset
    hidden = (ops.arange(room, dtype="int32")[None, :] > queries[:, None])[None, None]
    if decoder_attention_mask is not None:
        masked = ops.equal(decoder_attention_mask, 0)
        masked = ops.pad(masked, ((0, 0), (0, room - ops.shape(masked)[1])))
        hidden = ops.logical_or(hidden, masked[:, None, None, :])
    return ops.where(hidden, HIDDEN, 0.0)
