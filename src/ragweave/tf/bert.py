"""BERT, and DPR's question encoder around it.

Notation used for tensor shapes: N texts, S tokens, H size of a state, D vector size.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import keras
from keras import ops

from ragweave.errors import ConfigurationError
from ragweave.tf.keras_backend import Tensor
from ragweave.tf.layers import Container, Embedding, Encoded, LayerNorm, Linear, Network, hidden_keys
from ragweave.tf.transformer_layer import LayerSettings, Stack

_LAYER_NAMES = {
    "query": "self.query",
    "key": "self.key",
    "value": "self.value",
    "project": "output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}


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


class BertModel(Network):
    """BERT (Devlin et al. 2018, arXiv 1810.04805), from transformers' BertConfig or one with its fields."""

    base_model_prefix = "bert"
    # Not every checkpoint has a pooler, and it matters only to the pooling "pooler".
    optional: ClassVar[tuple[str, ...]] = ("pooler.",)

    def __init__(self, config: Any, *, pooler: bool = True) -> None:
        super().__init__(config, {"pooler": "pooler.dense"})
        if config.is_decoder:
            raise ConfigurationError(
                "A question encoder attends in both directions: set is_decoder to false."
            )
        size, std = config.hidden_size, config.initializer_range
        settings = LayerSettings(
            file_names=_LAYER_NAMES,
            size=size,
            heads=config.num_attention_heads,
            head_size=size // config.num_attention_heads,
            wide_size=config.intermediate_size,
            activation=config.hidden_act,
            norm=partial(LayerNorm, size, config.layer_norm_eps),
            dropout=config.hidden_dropout_prob,
            attention_dropout=config.attention_probs_dropout_prob,
            std=std,
        )
        self.embeddings = BertEmbeddings(config)
        self.encoder = Stack(settings, config.num_hidden_layers, file_names={"layers": "layer"})
        self.pooler = Linear(size, size, std=std) if pooler else None

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
        hidden, attentions, *_ = self.encoder(self.embeddings(input_ids), hidden_keys(attention_mask))
        encoded = Encoded.from_layers(attention_mask, hidden, attentions, **flags)
        encoded.pooled = None if self.pooler is None else ops.tanh(self.pooler(hidden[-1][:, 0]))
        return encoded


class DprQuestionEncoder(Network):
    """DPR's question encoder (Karpukhin et al. 2020, arXiv 2004.04906): BERT's first token, projected or not."""

    base_model_prefix = "question_encoder"

    def __init__(self, config: Any) -> None:
        parts = ("bert_model", "encode_proj")
        super().__init__(config, {part: f"question_encoder.{part}" for part in parts})
        self.bert_model = BertModel(config, pooler=False)
        self.encode_proj = None
        if config.projection_dim > 0:
            self.encode_proj = Linear(config.hidden_size, config.projection_dim, std=config.initializer_range)

    def call(self, input_ids: Tensor, attention_mask: Tensor = None, **flags: Any) -> Encoded:
        """Encode N questions, (N, S), with their mask, (N, S), as one vector each; see `BertModel.call`."""
        encoded = self.bert_model(input_ids, attention_mask, **flags)
        # Only the first token's vector is returned, as by transformers.
        encoded.pooled, encoded.last_hidden_state = encoded.last_hidden_state[:, 0], None
        if self.encode_proj is not None:
            encoded.pooled = self.encode_proj(encoded.pooled)
        return encoded
