"""What BART and T5 share: how they are asked, and a head that may or may not share the word embeddings.

Notation used for tensor shapes
    N contexts, R rows per context, S context tokens, T decoder tokens, L tokens that a cache has room for,
    H size of a state, h heads, d size of a head, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from keras import ops
from transformers import GenerationConfig

from ragweave.tf.backend import multiply_transposed
from ragweave.tf.layers import Container, Embedding, Linear
from ragweave.tf.networks import Decoded, DecoderCache, Encoded, causal_bias, row_attentions

Layers = tuple[Any, ...]
CrossKeys = tuple[Layers, Layers]


class Seq2SeqGenerator(Container):
    """A generator with an encoder.

    Encoder, decoder and head look into one table of word embeddings, unless `untie` gave one of them its own.

    Args:
        config: The configuration of transformers' class.
    """

    # What stands before some names, and is left out in a checkpoint without a head.
    base_model_prefix = "transformer"
    # Weights that a checkpoint may lack.
    optional: ClassVar[tuple[str, ...]] = ()
    # Weights that are the word embeddings, unless a checkpoint has others under their names.
    tied: ClassVar[dict[str, str]] = {}

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.generation_config = GenerationConfig.from_model_config(config)
        self.lm_head: Linear | None = None

    @property
    @abstractmethod
    def shared_embedding(self) -> Embedding:
        """The table of word embeddings."""

    @property
    @abstractmethod
    def encoder_stack(self) -> Any:
        """The encoder, with its attribute ``embed_tokens``."""

    @property
    @abstractmethod
    def decoder_stack(self) -> Any:
        """The decoder, with its attribute ``embed_tokens``."""

    @abstractmethod
    def new_embedding(self) -> Embedding:
        """A table of word embeddings with fresh weights."""

    @abstractmethod
    def encode(
        self,
        input_ids: Any,
        attention_mask: Any,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Encoded:
        """Encode N contexts, (N, S), with their mask, (N, S)."""

    @abstractmethod
    def cross_keys_values(self, states: Any) -> CrossKeys:
        """Keys and values of contexts, (N, h, S, d) for each layer, from the encoder's states, (N, S, H)."""

    @abstractmethod
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
        """Run the decoder's layers.

        Args:
            embedded: Embedded decoder tokens, (N*R, T, H).
            cross: Keys and values of the contexts.
            attention_mask: Their mask, (N, S).
            bias: What hides tokens from each other, to be broadcast to (N*R, h, T, L).
            at: How many tokens went before.
            room: L.
            past: Cache of earlier tokens.

        Returns:
            Lists over layers: states (one more), keys, values, attentions, cross attentions (N, h, R*T, S).
        """

    @abstractmethod
    def finish_logits(self, product: Any) -> Any:
        """Logits from the product of states and head."""

    def head_input(self, states: Any) -> Any:
        """What the head is given of the decoder's states, (N*R, T, H)."""
        return states

    def untie(self, name: str) -> None:
        """Give a part of the network a table of its own.

        Args:
            name: The name of its weight, one of `tied`.
        """
        if name == "lm_head.weight":
            self.lm_head = Linear(self.config.d_model, self.config.vocab_size, bias=False)
            return
        stack = self.encoder_stack if "encoder." in name else self.decoder_stack
        stack.embed_tokens = self.new_embedding()

    def embed(self, stack: Any, ids: Any) -> Any:
        """(N, T) to (N, T, H), with the table of encoder or decoder."""
        own = stack.embed_tokens
        return (self.shared_embedding if own is None else own)(ids)

    def empty_cache(self, cross: CrossKeys, rows: int, room: int) -> DecoderCache:
        """A cache for R rows under every context, with room for L tokens."""
        n, heads, _, size = ops.shape(cross[0][0])
        empty = tuple(ops.zeros((n * rows, heads, room, size), own.dtype) for own in cross[0])
        return DecoderCache(empty, empty, *cross, ops.zeros((), "int32"))

    def decode(
        self,
        cross: CrossKeys,
        attention_mask: Any,
        decoder_input_ids: Any,
        *,
        decoder_attention_mask: Any = None,
        past: DecoderCache | None = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Decoded:
        """Decode R rows of T tokens under every context.

        Args:
            cross: Keys and values of the contexts, as `cross_keys_values` made them.
            attention_mask: Mask of the contexts, (N, S).
            decoder_input_ids: (N*R, T), rows of a context next to each other.
            decoder_attention_mask: Which decoder tokens may be seen, earlier ones too, (N*R, any).
            past: Cache of earlier decoder tokens, with room for these.
            use_cache: Return a cache.
            output_attentions: Return attentions.
            output_hidden_states: Return hidden states.
        """
        rows, tokens = ops.shape(decoder_input_ids)
        at, room = (0, tokens) if past is None else (past.length, past.room)
        hidden, keys, values, attentions, cross_attentions = self.run_decoder(
            self.embed(self.decoder_stack, decoder_input_ids),
            cross,
            attention_mask,
            bias=causal_bias(tokens, room, at, decoder_attention_mask),
            at=at,
            room=room,
            past=past,
        )
        table = self.shared_embedding.weight if self.lm_head is None else self.lm_head.weight
        logits = self.finish_logits(multiply_transposed(self.head_input(hidden[-1]), table))
        found = Decoded(logits=logits)
        if use_cache:
            length = ops.cast(at + tokens, "int32")
            found.cache = DecoderCache(tuple(keys), tuple(values), *cross, length)
        if output_hidden_states:
            found.hidden_states = tuple(hidden)
        if output_attentions:
            times = rows // ops.shape(attention_mask)[0]
            found.attentions = tuple(attentions)
            found.cross_attentions = tuple(row_attentions(own, times) for own in cross_attentions)
        return found
