"""BERT, and DPR's question encoder around it. Attribute paths are the names of the checkpoints' weights.

Keras has ``output`` for itself; there an attribute ends in an underscore, which `ragweave.tf.weights` leaves out.

Notation used for tensor shapes: N texts, S tokens, H size of a state, D vector size.
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from ragweave.errors import ConfigurationError
from ragweave.tf.layers import (
    Container,
    Embedding,
    LayerNorm,
    Linear,
    activation,
    attend,
    hidden_keys,
    split_heads,
)
from ragweave.tf.networks import Encoded


class BertEmbeddings(Container):
    """Words, positions and the one segment, added up."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, std = config.hidden_size, config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, size, padding=config.pad_token_id, std=std)
        self.position_embeddings = Embedding(config.max_position_embeddings, size, std=std)
        self.token_type_embeddings = Embedding(config.type_vocab_size, size, std=std)
        self.LayerNorm = LayerNorm(size, config.layer_norm_eps)
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob)
        self.built = True

    def call(self, input_ids: Any) -> Any:
        """(N, S) to (N, S, H)."""
        positions = ops.arange(ops.shape(input_ids)[1], dtype="int32")
        states = self.word_embeddings(input_ids) + self.token_type_embeddings(ops.zeros_like(positions))
        return self.dropout(self.LayerNorm(states + self.position_embeddings(positions)))


class BertSelfAttention(Container):
    """Attention of tokens to all tokens."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, std = config.hidden_size, config.initializer_range
        self.query = Linear(size, size, std=std)
        self.key = Linear(size, size, std=std)
        self.value = Linear(size, size, std=std)
        self.dropout = keras.layers.Dropout(config.attention_probs_dropout_prob)
        self._heads = config.num_attention_heads
        self._scale = (size // self._heads) ** -0.5
        self.built = True

    def call(self, states: Any, bias: Any) -> tuple[Any, Any]:
        """(N, S, H) to the same, and attention weights."""
        query, key, value = (
            split_heads(own(states), self._heads) for own in (self.query, self.key, self.value)
        )
        return attend(query * self._scale, key, value, bias, self.dropout)


class BertOutput(Container):
    """A linear layer, then the sum with what it came from, normalised."""

    def __init__(self, config: Any, inputs: int) -> None:
        super().__init__()
        self.dense = Linear(inputs, config.hidden_size, std=config.initializer_range)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob)
        self.built = True

    def call(self, states: Any, before: Any) -> Any:
        """(N, S, inputs) and (N, S, H) to (N, S, H)."""
        return self.LayerNorm(self.dropout(self.dense(states)) + before)


class BertAttention(Container):
    """Self-attention with its output layer."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output_ = BertOutput(config, config.hidden_size)
        self.built = True

    def call(self, states: Any, bias: Any) -> tuple[Any, Any]:
        """(N, S, H) to the same, and attention weights."""
        found, weights = self.self(states, bias)
        return self.output_(found, states), weights


class BertIntermediate(Container):
    """The wide layer."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size, std=config.initializer_range)
        self._activation = activation(config.hidden_act)
        self.built = True

    def call(self, states: Any) -> Any:
        """(N, S, H) to (N, S, wide)."""
        return self._activation(self.dense(states))


class BertLayer(Container):
    """One layer of the encoder."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output_ = BertOutput(config, config.intermediate_size)
        self.built = True

    def call(self, states: Any, bias: Any) -> tuple[Any, Any]:
        """(N, S, H) to the same, and attention weights."""
        states, weights = self.attention(states, bias)
        return self.output_(self.intermediate(states), states), weights


class BertEncoder(Container):
    """All layers."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layer = [BertLayer(config) for _ in range(config.num_hidden_layers)]
        self.built = True

    def call(self, states: Any, bias: Any) -> tuple[list[Any], list[Any]]:
        """(N, S, H) to the states before, between and behind the layers, and attention weights."""
        hidden, attentions = [states], []
        for layer in self.layer:
            states, weights = layer(states, bias)
            hidden.append(states)
            attentions.append(weights)
        return hidden, attentions


class BertPooler(Container):
    """The vector of the first token, once more through a linear layer."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, std=config.initializer_range)
        self.built = True

    def call(self, states: Any) -> Any:
        """(N, S, H) to (N, H)."""
        return ops.tanh(self.dense(states[:, 0]))


class BertModel(Container):
    """BERT (Devlin et al. 2018, arXiv 1810.04805).

    Args:
        config: transformers' BertConfig, or what has its fields.
        pooler: Whether it has a pooler.

    Raises:
        ConfigurationError: It is a decoder, or its activation is not supported.
    """

    base_model_prefix = "bert"
    tied: ClassVar[dict[str, str]] = {}
    # A pooler is not always saved, and counts only where the configuration pools with it.
    optional: ClassVar[tuple[str, ...]] = ("pooler.",)

    def __init__(self, config: Any, *, pooler: bool = True) -> None:
        super().__init__()
        if config.is_decoder:
            raise ConfigurationError("A question encoder reads both ways: set is_decoder to false.")
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config) if pooler else None
        self.built = True

    def call(
        self,
        input_ids: Any,
        attention_mask: Any,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Encoded:
        """Encode N texts, (N, S), with their mask, (N, S)."""
        hidden, attentions = self.encoder(self.embeddings(input_ids), hidden_keys(attention_mask))
        return Encoded(
            last_hidden_state=hidden[-1],
            pooled=None if self.pooler is None else self.pooler(hidden[-1]),
            hidden_states=tuple(hidden) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


class DprEncoder(Container):
    """BERT and, where the configuration has one, a projection of its first token."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.bert_model = BertModel(config, pooler=False)
        self.encode_proj = None
        if config.projection_dim > 0:
            self.encode_proj = Linear(config.hidden_size, config.projection_dim, std=config.initializer_range)
        self.built = True

    def call(self, input_ids: Any, attention_mask: Any, **flags: bool) -> Encoded:
        """Encode N texts; the vector is the first token's."""
        output = self.bert_model(input_ids, attention_mask, **flags)
        output.pooled = output.last_hidden_state[:, 0]
        if self.encode_proj is not None:
            output.pooled = self.encode_proj(output.pooled)
        return output


class DprQuestionEncoder(Container):
    """DPR's question encoder (Karpukhin et al. 2020, arXiv 2004.04906).

    Args:
        config: transformers' DPRConfig.
    """

    base_model_prefix = "question_encoder"
    tied: ClassVar[dict[str, str]] = {}
    optional: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.question_encoder = DprEncoder(config)
        self.built = True

    def call(
        self,
        input_ids: Any,
        attention_mask: Any,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Encoded:
        """Encode N questions, (N, S), with their mask, (N, S), as one vector each."""
        output = self.question_encoder(
            input_ids,
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        output.last_hidden_state = None
        return output
