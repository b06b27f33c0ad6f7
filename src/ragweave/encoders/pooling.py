"""How the hidden states of an encoder become one vector per text.

Notation used for tensor shapes: B texts, S tokens, D vector size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ragweave.errors import ConfigurationError
from ragweave.types import POOLINGS, Pooling

if TYPE_CHECKING:
    from torch import Tensor


def pool(outputs: Any, attention_mask: Tensor, pooling: Pooling, normalize: bool) -> Tensor:
    """Reduce what an encoder returned to one vector per text.

    Vectors come back in float32 at least, also from a model in half precision: scores are differences of
    dot products over hundreds of dimensions, and bfloat16 keeps only three digits of them. Nothing here is
    a matrix product, so autocast leaves it alone.

    Args:
        outputs: What the encoder returned, a transformers output or its tuple.
        attention_mask: 1 on tokens that count, 0 on padding, shape (B, S).
        pooling: Which reduction to take.
        normalize: Whether to scale every vector to length 1, so that dot products are cosines.

    Returns:
        The vectors, shape (B, D).

    Raises:
        ConfigurationError: The encoder does not return what this pooling needs, or the pooling is unknown.
    """
    if pooling == "pooler":
        vectors = _at_least_float32(_pooled_by_model(outputs))
    elif pooling == "cls":
        vectors = _at_least_float32(_token_states(outputs, pooling)[:, 0])
    elif pooling == "mean":
        vectors = _mean(_token_states(outputs, pooling), attention_mask)
    else:
        raise ConfigurationError(f"Unknown pooling {pooling!r}: choose one of {', '.join(POOLINGS)}.")
    if normalize:
        from torch.nn.functional import normalize as scale_to_length_one

        vectors = scale_to_length_one(vectors, dim=-1)
    return vectors  # (B, D)


def _pooled_by_model(outputs: Any) -> Tensor:
    """The encoder's own vector: ``pooler_output``, or a first element that is (B, D) already, as DPR's."""
    pooled = getattr(outputs, "pooler_output", None)
    if pooled is None and outputs[0].dim() == 2:
        pooled = outputs[0]
    if pooled is None:
        raise ConfigurationError(
            "This encoder makes no pooled vector of its own: set the pooling to 'cls' or 'mean'."
        )
    return cast("Tensor", pooled)  # (B, D)


def _token_states(outputs: Any, pooling: Pooling) -> Tensor:
    """The last layer's state of every token, shape (B, S, D)."""
    states = getattr(outputs, "last_hidden_state", None)
    if states is None:
        states = outputs[0]
    if states.dim() != 3:
        raise ConfigurationError(
            f"The pooling '{pooling}' needs the states of all tokens, but this encoder returns one vector "
            "per text (DPR does): set the pooling to 'pooler'."
        )
    return cast("Tensor", states)  # (B, S, D)


def _mean(states: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean over the tokens that count; a text without any gets zeros, not NaN."""
    states = _at_least_float32(states)
    mask = attention_mask.unsqueeze(-1).to(states.dtype)  # (B, S, 1)
    return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)  # (B, D)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.element_size() < 4 else tensor
