"""The base of BART and T5: encoding, decoding with a cache, and a head that may share the word embeddings.

Notation used for tensor shapes: as in `ragweave.tf.transformer_layer`; V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from keras import ops
from transformers import GenerationConfig

from ragweave.tf.keras_backend import Tensor, multiply_transposed
from ragweave.tf.layers import (
    HIDDEN,
    Embedding,
    Encoded,
    Linear,
    Network,
    Tensors,
    hidden_keys,
)
from ragweave.tf.transformer_layer import CrossKeys, DecoderCache, Stack


@dataclass
class Decoded:
    """The output of a decoder with its head."""

    logits: Tensor  # (N*R, T, V)
    cache: DecoderCache | None = None  # to continue from, with ``use_cache``
    hidden_states: Tensors | None = None  # layer by layer, with ``output_hidden_states``
    attentions: Tensors | None = None  # layer by layer, with ``output_attentions``
    cross_attentions: Tensors | None = None  # layer by layer, (N*R, h, T, S), with ``output_attentions``


class EncoderDecoder(Network):
    """A generator with an encoder.

    Encoder, decoder and head share one table of word embeddings, unless `untie` gave one of them its own.
    ``embedding_options`` are those of `Embedding` for such tables. ``parts_prefix`` precedes the names of encoder,
    decoder and table in checkpoints.
    """

    def __init__(
        self,
        config: Any,
        encoder: Stack,
        decoder: Stack,
        *,
        embedding_options: dict[str, Any],
        parts_prefix: str = "",
    ) -> None:
        super().__init__(config, {name: parts_prefix + name for name in ("shared", "encoder", "decoder")})
        self._prefix = parts_prefix
        self._new_embedding = partial(Embedding, config.vocab_size, config.d_model, **embedding_options)
        self.shared: Embedding = self._new_embedding()
        self.encoder, self.decoder = encoder, decoder
        self.lm_head: Linear | None = None
        self.generation_config = GenerationConfig.from_model_config(config)

    @property
    def tied(self) -> dict[str, str]:
        """See `Network.tied`."""
        tables = (f"{self._prefix}encoder.embed_tokens", f"{self._prefix}decoder.embed_tokens", "lm_head")
        return {f"{table}.weight": f"{self._prefix}shared.weight" for table in tables}

    def get_output_embeddings(self) -> Embedding | Linear:
        """The head: a separate layer, or the table of word embeddings."""
        return self.shared if self.lm_head is None else self.lm_head

    def untie(self, name: str) -> None:
        """Give a part of the network, by the name of its weight in `tied`, its own table."""
        if name == "lm_head.weight":
            self.lm_head = Linear(self.config.d_model, self.config.vocab_size, bias=False)
        else:
            stack = self.encoder if "encoder." in name else self.decoder
            stack.embed_tokens = self._new_embedding()

    def encode(self, input_ids: Tensor, attention_mask: Tensor, **flags: bool) -> Encoded:
        """Encode N contexts, (N, S), with their mask, (N, S); flags as for `Encoded.from_layers`."""
        embedded = (self.encoder.embed_tokens or self.shared)(input_ids)
        hidden, attentions, *_ = self.encoder(embedded, hidden_keys(attention_mask))
        return Encoded.from_layers(attention_mask, hidden, attentions, **flags)

    def cross_keys_values(self, states: Tensor) -> CrossKeys:
        """Keys and values of contexts from the encoder's states, (N, S, H)."""
        pairs = (layer.cross_attention.keys_values(states) for layer in self.decoder.layers)
        keys, values = zip(*pairs, strict=True)
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
        """Decode R rows of T tokens, (N*R, T), under every context, those of a context next to each other.

        The contexts have keys and values, ``cross``, and a mask, (N, S). The mask of decoder tokens, (N*R, any),
        begins at the first one. The cache of earlier tokens, ``past``, has room for these.
        """
        rows, tokens = ops.shape(decoder_input_ids)
        offset, room = (0, tokens) if past is None else (past.length, ops.shape(past.keys[0])[2])
        hidden, attentions, cross_attentions, keys, values = self.decoder(
            (self.decoder.embed_tokens or self.shared)(decoder_input_ids),
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


def unfold_rows(weights: Tensor, rows: int) -> Tensor:
    """Cross attentions of R folded rows, (N, h, R*T, S), to (N*R, h, T, S)."""
    n, heads, queries, keys = ops.shape(weights)
    weights = ops.reshape(weights, (n, heads, rows, queries // rows, keys))
    return ops.reshape(ops.transpose(weights, (0, 2, 1, 3, 4)), (n * rows, heads, queries // rows, keys))


def causal_bias(tokens: int, room: int, offset: Any, decoder_attention_mask: Tensor = None) -> Tensor:
    """The bias that hides later tokens from T tokens after ``offset`` earlier ones: (1 or N*R, 1, T, L).

    The mask says which tokens may be seen, (N*R, any); tokens beyond it are visible.
    """
    queries = ops.arange(tokens, dtype="int32") + offset
    hidden = (ops.arange(room, dtype="int32")[None, :] > queries[:, None])[None, None]
    if decoder_attention_mask is not None:
        masked = ops.equal(decoder_attention_mask, 0)
        masked = ops.pad(masked, ((0, 0), (0, room - ops.shape(masked)[1])))
        hidden = ops.logical_or(hidden, masked[:, None, None, :])
    return ops.where(hidden, HIDDEN, 0.0)
