"""What networks return, the decoder's cache, and which networks there are.

Notation used for tensor shapes
    N contexts, R rows per context (beams, samples, hypotheses), S context tokens, T decoder tokens, L tokens that a
    cache has room for, H size of a state, h heads, d size of a head, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from keras import ops

from ragweave.errors import ConfigurationError
from ragweave.tf.layers import HIDDEN

Tensors = tuple[Any, ...]


class DecoderCache(NamedTuple):
    """Keys and values of a decoder's layers. Its shapes do not change from step to step.

    Attributes:
        keys: Of the decoder's own tokens, (N*R, h, L, d) for each layer; what lies behind ``length`` is empty.
        values: Likewise.
        cross_keys: Of the contexts, (N, h, S, d) for each layer; R rows share them.
        cross_values: Likewise.
        length: Number of decoder tokens that it holds, an int32 scalar.
    """

    keys: Tensors
    values: Tensors
    cross_keys: Tensors
    cross_values: Tensors
    length: Any

    @property
    def room(self) -> int:
        """L."""
        return ops.shape(self.keys[0])[2]

    def with_room_for(self, tokens: int) -> DecoderCache:
        """The same with room for so many more tokens behind those that it has room for."""
        paddings = ((0, 0), (0, 0), (0, tokens), (0, 0))
        return self._replace(
            keys=tuple(ops.pad(own, paddings) for own in self.keys),
            values=tuple(ops.pad(own, paddings) for own in self.values),
        )

    def reordered(self, rows: Any) -> DecoderCache:
        """Let every row continue from the given one, (N*R,), of the same context."""
        return self._replace(
            keys=tuple(ops.take(own, rows, axis=0) for own in self.keys),
            values=tuple(ops.take(own, rows, axis=0) for own in self.values),
        )


@dataclass
class Encoded:
    """What an encoder returns.

    Attributes:
        last_hidden_state: (N, S, H); none from DPR.
        pooled: One vector for each row, (N, H), where the network makes one itself.
        hidden_states: Layer by layer, where asked for.
        attentions: Layer by layer, where asked for.
    """

    last_hidden_state: Any
    pooled: Any = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


@dataclass
class Decoded:
    """What a decoder with its head returns.

    Attributes:
        logits: (N*R, T, V).
        cache: Keys and values to continue from, where asked for.
        hidden_states: Layer by layer, where asked for.
        attentions: Layer by layer, where asked for.
        cross_attentions: Layer by layer, where asked for.
    """

    logits: Any
    cache: DecoderCache | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    cross_attentions: Tensors | None = None


def write(past: Any, new: Any, at: Any) -> Any:
    """Put keys or values of T tokens, (N, h, T, d), into those of L, (N, h, L, d), behind the first ``at``."""
    return ops.slice_update(past, (0, 0, at, 0), ops.cast(new, past.dtype))


def causal_bias(tokens: int, room: int, at: Any, decoder_attention_mask: Any = None) -> Any:
    """The bias by which T tokens, of which ``at`` went before, see none behind them: (1 or N, 1, T, L).

    Args:
        tokens: T.
        room: L.
        at: How many tokens went before.
        decoder_attention_mask: Which tokens may be seen at all, (N, any); what lies behind it may.
    """
    queries = ops.arange(tokens, dtype="int32") + at
    hidden = (ops.arange(room, dtype="int32")[None, :] > queries[:, None])[None, None]
    if decoder_attention_mask is not None:
        masked = ops.equal(decoder_attention_mask, 0)
        masked = ops.pad(masked, ((0, 0), (0, room - ops.shape(masked)[1])))
        hidden = ops.logical_or(hidden, masked[:, None, None, :])
    return ops.where(hidden, HIDDEN, 0.0)


def row_attentions(weights: Any, rows: int) -> Any:
    """Cross attentions of R rows that were folded into the queries, (N, h, R*T, S) to (N*R, h, T, S)."""
    n, heads, queries, keys = ops.shape(weights)
    apart = ops.reshape(weights, (n, heads, rows, queries // rows, keys))
    return ops.reshape(ops.transpose(apart, (0, 2, 1, 3, 4)), (n * rows, heads, queries // rows, keys))


def build_question_encoder(config: Any) -> Any:
    """A question encoder with fresh weights.

    Raises:
        ConfigurationError: There is none of this type here.
    """
    from ragweave.tf.bert import BertModel, DprQuestionEncoder

    return _build("question_encoder", config, {"bert": BertModel, "dpr": DprQuestionEncoder})


def build_generator(config: Any) -> Any:
    """A generator with fresh weights.

    Raises:
        ConfigurationError: There is none of this type here.
    """
    from ragweave.tf.bart import BartForConditionalGeneration
    from ragweave.tf.t5 import T5ForConditionalGeneration

    return _build(
        "generator", config, {"bart": BartForConditionalGeneration, "t5": T5ForConditionalGeneration}
    )


def _build(part: str, config: Any, known: dict[str, Any]) -> Any:
    if config.model_type not in known:
        raise ConfigurationError(
            f"ragweave.tf has no {part} of type '{config.model_type}'; it has {' and '.join(sorted(known))}. "
            "The torch classes of ragweave take any."
        )
    return known[config.model_type](config)
