"""BERT, and DPR's question encoder around it. Attribute paths are the names of the checkpoints' weights.

Keras reserves ``output``; that attribute ends in an underscore, which `ragweave.tf.checkpoints` strips.

Notation used for tensor shapes: N texts, S tokens, H size of a state, D vector size.
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from ragweave.errors import ConfigurationError
from ragweave.tf.keras_backend import Tensor
from ragweave.tf.layers import (
    Container,
    Embedding,
    Encoded,
    LayerNorm,
    Linear,
    Network,
    activation,
    attend,
    hidden_keys,
    run_layers,
    split_heads,
)


class BertEmbeddings(Container):
    """The sum of the embeddings of words, positions and the first segment."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, std = config.hidden_size, config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, size, padding=config.pad_token_id, std=std)
        self.position_embeddings = Embedding(config.max_position_embeddings, size, std=std)
        self.token_type_embeddings = Embedding(config.type_vocab_size, size, std=std)
        self.LayerNorm = LayerNorm(size, config.layer_norm_eps)
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob)

    def call(self, input_ids: Tensor) -> Tensor:
        """(N, S) to (N, S, H)."""
        positions = ops.arange(ops.shape(input_ids)[1], dtype="int32")
        states = self.word_embeddings(input_ids) + self.token_type_embeddings(ops.zeros_like(positions))
        return self.dropout(self.LayerNorm(states + self.position_embeddings(positions)))


class BertSelfAttention(Container):
    """Attention of all tokens to all tokens."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, std = config.hidden_size, config.initializer_range
        self.query = Linear(size, size, std=std)
        self.key = Linear(size, size, std=std)
        self.value = Linear(size, size, std=std)
        self.dropout = keras.layers.Dropout(config.attention_probs_dropout_prob)
        self._heads = config.num_attention_heads
        self._scale = (size // self._heads) ** -0.5

    def call(self, states: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """(N, S, H) to the same, and attention weights."""
        query, key, value = (
            split_heads(project(states), self._heads) for project in (self.query, self.key, self.value)
        )
        return attend(query * self._scale, key, value, bias, self.dropout)


class BertOutput(Container):
    """A linear layer, then a residual connection and its norm."""

    def __init__(self, config: Any, inputs: int) -> None:
        super().__init__()
        self.dense = Linear(inputs, config.hidden_size, std=config.initializer_range)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob)

    def call(self, states: Tensor, residual: Tensor) -> Tensor:
        """(N, S, inputs) and (N, S, H) to (N, S, H)."""
        return self.LayerNorm(self.dropout(self.dense(states)) + residual)


class BertAttention(Container):
    """Self-attention with its output layer."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output_ = BertOutput(config, config.hidden_size)

    def call(self, states: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """(N, S, H) to the same, and attention weights."""
        attended, weights = self.self(states, bias)
        return self.output_(attended, states), weights


class BertIntermediate(Container):
    """The first half of the feed-forward network."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size, std=config.initializer_range)
        self._activation = activation(config.hidden_act)

    def call(self, states: Tensor) -> Tensor:
        """(N, S, H) to (N, S, intermediate_size)."""
        return self._activation(self.dense(states))


class BertLayer(Container):
    """One layer of the encoder."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output_ = BertOutput(config, config.intermediate_size)

    def call(self, states: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """(N, S, H) to the same, and attention weights."""
        states, weights = self.attention(states, bias)
        return self.output_(self.intermediate(states), states), weights


class BertEncoder(Container):
    """All layers."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layer = [BertLayer(config) for _ in range(config.num_hidden_layers)]

    def call(self, states: Tensor, bias: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(N, S, H) to the output of `run_layers`."""
        return run_layers(self.layer, states, bias)


class BertPooler(Container):
    """A linear layer over the first token's state."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, std=config.initializer_range)

    def call(self, states: Tensor) -> Tensor:
        """(N, S, H) to (N, H)."""
        return ops.tanh(self.dense(states[:, 0]))


class BertModel(Network):
    """BERT (Devlin et al. 2018, arXiv 1810.04805).

    Args:
        config: transformers' BertConfig, or one with its fields.
        pooler: Whether it has a pooler.

    Raises:
        ConfigurationError: The configuration is of a decoder, or its activation is not supported.
    """

    base_model_prefix = "bert"
    # Not every checkpoint has a pooler, and it matters only to the pooling "pooler".
    optional: ClassVar[tuple[str, ...]] = ("pooler.",)

    def __init__(self, config: Any, *, pooler: bool = True) -> None:
        super().__init__(config)
        if config.is_decoder:
            raise ConfigurationError(
                "A question encoder attends in both directions: set is_decoder to false."
            )
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config) if pooler else None

    def call(
        self,
        input_ids: Tensor,
        attention_mask: Tensor = None,
        token_type_ids: Tensor = None,
        **flags: bool,
    ) -> Encoded:
        """Encode N texts, (N, S), with their mask, (N, S); all tokens count by default.

        ``token_type_ids`` is ignored: a question is one segment. Flags as for `Encoded.from_layers`.
        """
        if attention_mask is None:
            attention_mask = ops.ones_like(input_ids)
        hidden, attentions = self.encoder(self.embeddings(input_ids), hidden_keys(attention_mask))
        encoded = Encoded.from_layers(attention_mask, hidden, attentions, **flags)
        encoded.pooled = None if self.pooler is None else self.pooler(hidden[-1])
        return encoded


class DprEncoder(Container):
    """BERT and, if the configuration has one, a projection of its first token."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.bert_model = BertModel(config, pooler=False)
        self.encode_proj = None
        if config.projection_dim > 0:
            self.encode_proj = Linear(config.hidden_size, config.projection_dim, std=config.initializer_range)

    def call(self, input_ids: Tensor, attention_mask: Tensor = None, **flags: Any) -> Encoded:
        """Encode N texts; only the first token's vector is returned, as by transformers."""
        encoded = self.bert_model(input_ids, attention_mask, **flags)
        encoded.pooled, encoded.last_hidden_state = encoded.last_hidden_state[:, 0], None
        if self.encode_proj is not None:
            encoded.pooled = self.encode_proj(encoded.pooled)
        return encoded


class DprQuestionEncoder(Network):
    """DPR's question encoder (Karpukhin et al. 2020, arXiv 2004.04906).

    Args:
        config: transformers' DPRConfig.
    """

    base_model_prefix = "question_encoder"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.question_encoder = DprEncoder(config)

    def call(self, input_ids: Tensor, attention_mask: Tensor = None, **flags: Any) -> Encoded:
        """Encode N questions, (N, S), with their mask, (N, S), as one vector each; see `BertModel.call`."""
        return self.question_encoder(input_ids, attention_mask, **flags)
