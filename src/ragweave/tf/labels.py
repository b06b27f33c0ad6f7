"""From labels to what the decoder reads and has to say: `ragweave.modeling.labels`, which explains the conventions.

In a graph the values of labels cannot be looked at while it is built; what depends on them is worked out in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from ragweave.errors import ShapeError
from ragweave.modeling.special_tokens import SpecialTokens
from ragweave.tf.backend import is_traced
from ragweave.tf.marginalization import Targets, scored_positions

Tensor = Any

IGNORE_INDEX = -100


def shift_tokens_right(labels: Tensor, start_token_id: int, filler_token_id: int) -> Tensor:
    """Decoder input for labels, (B, T): the start token, then every label but the last; -100 is filled."""
    start = ops.full_like(labels[:, :1], start_token_id)
    shifted = ops.concatenate([start, labels[:, :-1]], axis=1)
    return ops.where(shifted < 0, filler_token_id, shifted)


def make_targets(labels: Tensor, decoder_input_ids: Tensor | None, special: SpecialTokens) -> Targets:
    """Work out decoder input, targets and which of them count.

    Args:
        labels: Label tokens, (B, T); -100 and padding are not scored.
        decoder_input_ids: The caller's decoder input, (B, T), if any. Equal to the labels, it says the same as
            labels alone.
        special: The model's special tokens.

    Returns:
        The targets, all of shape (B, T).

    Raises:
        ShapeError: Labels are not (B, T), or differ in shape from the decoder input.
    """
    if len(labels.shape) != 2 or labels.shape[1] == 0:
        raise ShapeError(f"labels has shape {tuple(labels.shape)}; expected (B, T).")
    if decoder_input_ids is not None and tuple(decoder_input_ids.shape) != tuple(labels.shape):
        raise ShapeError(
            f"decoder_input_ids has shape {tuple(decoder_input_ids.shape)}; expected {tuple(labels.shape)}, "
            "the shape of labels."
        )
    readable = ops.where(labels < 0, special.filler, labels)
    following = ops.concatenate([labels[:, 1:], ops.full_like(labels[:, :1], IGNORE_INDEX)], axis=1)
    shifted = shift_tokens_right(labels, special.decoder_start, special.filler)
    alone = True if decoder_input_ids is None else ops.all(ops.equal(decoder_input_ids, readable))
    single = ops.equal(ops.shape(labels)[1], 1)  # can only be meant to be predicted
    targets = ops.where(ops.logical_and(alone, ops.logical_not(single)), following, labels)
    given = readable if decoder_input_ids is None else ops.cast(decoder_input_ids, labels.dtype)
    decoder_input_ids = ops.where(ops.logical_and(alone, single), shifted, given)
    return Targets(decoder_input_ids, targets, scored_positions(targets, special.pad, special.eos))


def check_labels(labels: Tensor, vocabulary: int) -> None:
    """Check that labels are token ids of the generator, or -100. Inside of a graph nothing is checked.

    Raises:
        ShapeError: One of them is neither; the message names it.
    """
    if is_traced(labels):
        return
    values = np.asarray(ops.convert_to_numpy(labels))
    wrong = (values >= vocabulary) | ((values < 0) & (values != IGNORE_INDEX))
    if wrong.any():
        raise ShapeError(
            f"labels holds {int(values[wrong][0])}; expected token ids from 0 to {vocabulary - 1}, or -100 for "
            "tokens that are not scored."
        )


def check_label_rows(labels: Tensor, questions: Tensor | None) -> None:
    """Check that there is one row of labels for every row of ``questions`` (their scores or their tokens).

    Raises:
        ShapeError: There is not.
    """
    if questions is None or len(questions.shape) != 2 or None in (labels.shape[0], questions.shape[0]):
        return
    if labels.shape[0] != questions.shape[0]:
        raise ShapeError(
            f"labels has {labels.shape[0]} rows, but there are {questions.shape[0]} questions; "
            "expected one row of labels for every question."
        )
