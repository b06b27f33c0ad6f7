"""Contexts on their way into the generator: checked, trimmed, and read once.

Notation used for tensor shapes
    B questions, K passages per question, S context tokens, H size of a state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from ragweave.errors import ShapeError
from ragweave.tf.backend import is_traced
from ragweave.tf.networks import Tensors

Tensor = Any


@dataclass
class EncodedContexts:
    """What the generator remembers of B*K contexts after it has read them once.

    Attributes:
        attention_mask: Mask of the contexts, (B*K, S).
        last_hidden_state: The encoder's states, (B*K, S, H).
        hidden_states: The encoder's hidden states layer by layer, where asked for.
        attentions: The encoder's attentions layer by layer, where asked for.
    """

    attention_mask: Tensor
    last_hidden_state: Tensor
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


def check_scores(doc_scores: Tensor) -> None:
    """Check that every question has a passage to be answered from. Inside of a graph nothing is checked.

    Raises:
        ShapeError: A row of the scores is -inf throughout.
    """
    if is_traced(doc_scores):
        return
    without = np.isneginf(ops.convert_to_numpy(doc_scores)).all(axis=1).nonzero()[0]
    if len(without):
        raise ShapeError(
            f"doc_scores is -inf for all passages of question {int(without[0])}; expected one passage at least."
        )


def trim_right(context_input_ids: Tensor, context_attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cut the columns that are padding in every row, on the right: they can change no result, but cost time.

    Inside of a graph they stay, so that its shapes can be known before it runs.

    Args:
        context_input_ids: Contexts, (B*K, S).
        context_attention_mask: Their mask, (B*K, S).

    Returns:
        Both, with S the length of the longest real context (1 at least).
    """
    if is_traced(context_input_ids, context_attention_mask):
        return context_input_ids, context_attention_mask
    used = (ops.convert_to_numpy(context_attention_mask) != 0).any(axis=0).nonzero()[0]
    longest = int(used[-1]) + 1 if len(used) else 1
    return context_input_ids[:, :longest], context_attention_mask[:, :longest]
