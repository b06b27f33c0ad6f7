"""How the states of a question encoder become one vector; see `ragweave.encoders.pooling`.

Notation used for tensor shapes: B texts, S tokens, D vector size.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from ragweave.errors import ConfigurationError
from ragweave.tf.layers import at_least_float32
from ragweave.tf.networks import Encoded
from ragweave.types import Pooling


def pool(outputs: Encoded, attention_mask: Any, pooling: Pooling, normalize: bool) -> Any:
    """Reduce what an encoder returned to one vector per text, in float32 at least.

    Args:
        outputs: What the encoder returned.
        attention_mask: 1 on tokens that count, 0 on padding, shape (B, S).
        pooling: Which reduction to take.
        normalize: Whether to scale every vector to length 1.

    Returns:
        The vectors, shape (B, D).

    Raises:
        ConfigurationError: The encoder does not make what this pooling needs.
    """
    if pooling == "pooler":
        if outputs.pooled is None:
            raise ConfigurationError(
                "This encoder makes no pooled vector of its own: set the pooling to 'cls' or 'mean'."
            )
        vectors = at_least_float32(outputs.pooled)
    elif outputs.last_hidden_state is None:
        raise ConfigurationError(
            f"The pooling '{pooling}' needs the states of all tokens, but this encoder returns one vector per text "
            "(DPR does): set the pooling to 'pooler'."
        )
    elif pooling == "cls":
        vectors = at_least_float32(outputs.last_hidden_state[:, 0])
    else:
        states = at_least_float32(outputs.last_hidden_state)
        mask = ops.cast(attention_mask, states.dtype)[..., None]  # (B, S, 1)
        vectors = ops.sum(states * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1.0)
    if normalize:
        square = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
        vectors = vectors * ops.rsqrt(ops.maximum(square, 1e-24))
    return vectors  # (B, D)
