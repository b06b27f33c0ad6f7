"""T5 (Raffel et al. 2019, arXiv 1910.10683), plain and gated.

Notation used for tensor shapes: as in `ragweave.tf.transformer_layer`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from keras import ops

from ragweave.tf.encoder_decoder import EncoderDecoder
from ragweave.tf.keras_backend import Tensor
from ragweave.tf.layers import Embedding, RMSNorm
from ragweave.tf.transformer_layer import LayerSettings, Stack


def bucket_table(buckets: int, max_distance: int) -> np.ndarray:
    """The bucket of every distance from 0 to ``max_distance``, for a number of buckets in one direction.

    Half of the buckets hold one distance each; the others grow with the distance's logarithm. The table is computed
    once, and in float32 as in transformers, since some distances lie exactly on a bucket's border.
    """
    exact = buckets // 2
    distances = np.arange(max_distance + 1)
    far = np.log(np.maximum(distances, 1).astype(np.float32) / np.float32(exact))
    far = far / np.float32(math.log(max_distance / exact)) * np.float32(buckets - exact)
    far = np.minimum(exact + far.astype(np.int32), buckets - 1)
    return np.where(distances < exact, distances, far).astype(np.int32)


class T5Stack(Stack):
    """Encoder or decoder. Checkpoints have the table of position biases in the first layer."""

    def __init__(self, config: Any, n_layers: int, *, decoder: bool) -> None:
        feed_forward = f"layer.{2 if decoder else 1}"
        settings = LayerSettings(
            file_names={
                "attention": "layer.0.SelfAttention",
                "attention_norm": "layer.0.layer_norm",
                "cross_attention": "layer.1.EncDecAttention",
                "cross_norm": "layer.1.layer_norm",
                **{"query": "q", "key": "k", "value": "v", "project": "o"},
                "wide": f"{feed_forward}.DenseReluDense.{'wi_0' if config.is_gated_act else 'wi'}",
                "gate": f"{feed_forward}.DenseReluDense.wi_1",
                "narrow": f"{feed_forward}.DenseReluDense.wo",
                "feed_forward_norm": f"{feed_forward}.layer_norm",
            },
            size=config.d_model,
            heads=config.num_heads,
            head_size=config.d_kv,
            wide_size=config.d_ff,
            activation=config.dense_act_fn,
            norm=partial(RMSNorm, config.d_model, config.layer_norm_epsilon),
            dropout=config.dropout_rate,
            attention_dropout=config.dropout_rate,
            activation_dropout=config.dropout_rate,
            std=config.initializer_factor * config.d_model**-0.5,
            query_std=config.initializer_factor * (config.d_model * config.d_kv) ** -0.5,
            project_std=config.initializer_factor * (config.num_heads * config.d_kv) ** -0.5,
            narrow_std=config.initializer_factor * config.d_ff**-0.5,
            bias=False,
            scaled=False,
            norm_first=True,
            gated=config.is_gated_act,
        )
        names = {
            "layers": "block",
            "position_biases": "block.0.layer.0.SelfAttention.relative_attention_bias",
        }
        super().__init__(settings, n_layers, decoder=decoder, file_names=names)
        buckets = config.relative_attention_num_buckets
        self.position_biases = Embedding(buckets, config.num_heads, std=settings.std)
        self.final_layer_norm = settings.norm()
        self._decoder = decoder
        self._max_distance = config.relative_attention_max_distance
        self._buckets = buckets if decoder else buckets // 2  # those of one direction
        self._bucket_of = bucket_table(self._buckets, self._max_distance)

    def _with_positions(self, states: Tensor, bias: Tensor, offset: Any) -> tuple[Tensor, Tensor]:
        queries = ops.arange(ops.shape(states)[1], dtype="int32") + offset
        relative = (
            ops.arange(ops.shape(bias)[-1], dtype="int32")[None, :] - queries[:, None]
        )  # (queries, keys)
        distance = ops.maximum(-relative, 0) if self._decoder else ops.abs(relative)
        bucket = ops.take(self._bucket_of, ops.minimum(distance, self._max_distance), axis=0)
        if not self._decoder:
            bucket = bucket + ops.where(relative > 0, self._buckets, 0)
        position_bias = ops.transpose(self.position_biases(bucket), (2, 0, 1))  # (h, queries, keys)
        return self.dropout(states), bias + ops.cast(position_bias, "float32")[None]

    def _final(self, states: Tensor) -> Tensor:
        return self.dropout(self.final_layer_norm(states))


class T5ForConditionalGeneration(EncoderDecoder):
    """T5 with its language-model head, from transformers' T5Config.

    transformers ties the head of every model that it creates, and scales the head's input unless the configuration
    was written with ``tie_word_embeddings=false`` (T5 1.1, Flan-T5). Checkpoints of those have a separate head,
    which stays separate when they are loaded, here as in transformers.
    """

    base_model_prefix = "transformer"

    def __init__(self, config: Any) -> None:
        super().__init__(
            config,
            T5Stack(config, config.num_layers, decoder=False),
            T5Stack(config, config.num_decoder_layers, decoder=True),
            embedding_options={"std": config.initializer_factor},
        )

    def logits(self, states: Tensor) -> Tensor:
        """The decoder's states, (N*R, T, H), to (N*R, T, V); scaled where the head was trained this way."""
        if self.config.scale_decoder_outputs:
            states = states * ops.cast(self.config.d_model**-0.5, states.dtype)
        return super().logits(states)
