"""BART (Lewis et al. 2019, arXiv 1910.13461).

Notation used for tensor shapes: as in `ragweave.tf.transformer_layer`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from keras import ops

from ragweave.tf.encoder_decoder import EncoderDecoder
from ragweave.tf.keras_backend import Tensor
from ragweave.tf.layers import Embedding, LayerNorm
from ragweave.tf.transformer_layer import LayerSettings, Stack

# The first rows of the table of positions are not used.
POSITION_OFFSET = 2

_LAYER_NAMES = {
    "attention": "self_attn",
    "attention_norm": "self_attn_layer_norm",
    "cross_attention": "encoder_attn",
    "cross_norm": "encoder_attn_layer_norm",
    **{"query": "q_proj", "key": "k_proj", "value": "v_proj", "project": "out_proj"},
    **{"wide": "fc1", "narrow": "fc2", "feed_forward_norm": "final_layer_norm"},
}


class BartStack(Stack):
    """Encoder or decoder."""

    def __init__(self, config: Any, *, decoder: bool) -> None:
        name = "decoder" if decoder else "encoder"
        heads = getattr(config, f"{name}_attention_heads")
        settings = LayerSettings(
            file_names=_LAYER_NAMES,
            size=config.d_model,
            heads=heads,
            head_size=config.d_model // heads,
            wide_size=getattr(config, f"{name}_ffn_dim"),
            activation=config.activation_function,
            norm=partial(LayerNorm, config.d_model),
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            activation_dropout=config.activation_dropout,
            std=config.init_std,
        )
        super().__init__(settings, getattr(config, f"{name}_layers"), decoder=decoder)
        self.embed_positions = Embedding(
            config.max_position_embeddings + POSITION_OFFSET, config.d_model, std=config.init_std
        )
        self.layernorm_embedding = LayerNorm(config.d_model)

    def _with_positions(self, states: Tensor, bias: Tensor, offset: Any) -> tuple[Tensor, Tensor]:
        positions = ops.arange(ops.shape(states)[1], dtype="int32") + (POSITION_OFFSET + offset)
        return self.dropout(self.layernorm_embedding(states + self.embed_positions(positions))), bias


class BartForConditionalGeneration(EncoderDecoder):
    """BART with its language-model head, from transformers' BartConfig."""

    base_model_prefix = "model"
    optional: ClassVar[tuple[str, ...]] = ("final_logits_bias",)

    def __init__(self, config: Any) -> None:
        super().__init__(
            config,
            BartStack(config, decoder=False),
            BartStack(config, decoder=True),
            embedding_options={
                "padding": config.pad_token_id,
                "scale": config.d_model**0.5 if config.scale_embedding else 1.0,
                "std": config.init_std,
            },
            parts_prefix="model.",
        )
        self.final_logits_bias = self.add_weight(
            shape=(1, config.vocab_size), initializer="zeros", trainable=False, name="final_logits_bias"
        )
        if not config.tie_word_embeddings:
            for name in self.tied:
                self.untie(name)

    def logits(self, states: Tensor) -> Tensor:
        """The decoder's states, (N*R, T, H), to (N*R, T, V); BART's checkpoints may have a bias."""
        product = super().logits(states)
        return product + ops.cast(self.final_logits_bias, product.dtype)
