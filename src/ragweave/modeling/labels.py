"""From labels to what the decoder reads and has to say.

Two conventions meet here.

*Labels alone, seq2seq generator*: the convention of transformers' RAG, in which the facebook/rag-* checkpoints
were trained. The labels begin with a token that is read but not scored (BART's ``<s>``), and serve as decoder
input themselves: position t predicts label t+1.

*Labels with decoder input, or a causal generator*: the usual convention. Position t predicts label t; the
decoder input is the labels shifted right behind the start token (``model.shift_tokens_right(labels)``).
A single label column can only be meant this way.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ragweave.errors import ShapeError
from ragweave.marginalization import IGNORE_INDEX, Targets, scored_positions


def make_targets(
    labels: Tensor,
    decoder_input_ids: Tensor | None,
    *,
    shift_right: Callable[[Tensor], Tensor],
    causal: bool,
    pad_token_id: int | None,
    eos_token_id: int | None,
    filler_token_id: int,
) -> Targets:
    """Work out decoder input, targets and which of them count.

    Args:
        labels: Label tokens, (B, T); -100 and padding are not scored.
        decoder_input_ids: The caller's decoder input, (B, T), if any. Equal to the labels, it says the same as
            labels alone.
        shift_right: Makes decoder input from labels.
        causal: Whether the generator is causal.
        pad_token_id: The generator's padding token.
        eos_token_id: The generator's end-of-sequence token.
        filler_token_id: What stands in the decoder input for labels of -100.

    Returns:
        The targets, all of shape (B, T).

    Raises:
        ShapeError: Labels are not (B, T), or differ in shape from the decoder input.
    """
    if labels.dim() != 2 or not labels.shape[1]:
        raise ShapeError(f"labels has shape {tuple(labels.shape)}; expected (B, T).")
    if decoder_input_ids is not None and decoder_input_ids.shape != labels.shape:
        raise ShapeError(
            f"decoder_input_ids has shape {tuple(decoder_input_ids.shape)}; expected {tuple(labels.shape)}, "
            "the shape of labels."
        )
    readable = labels.masked_fill(labels < 0, filler_token_id)
    if decoder_input_ids is not None and not torch.equal(decoder_input_ids, readable):
        targets = labels
    elif causal or labels.shape[1] == 1:
        decoder_input_ids, targets = shift_right(labels), labels
    else:
        decoder_input_ids = readable
        targets = torch.cat([labels[:, 1:], labels.new_full((len(labels), 1), IGNORE_INDEX)], dim=1)
    return Targets(decoder_input_ids, targets, scored_positions(targets, pad_token_id, eos_token_id))


def check_labels(labels: Tensor, vocabulary: int) -> None:
    """Check that labels are token ids of the generator, or -100.

    Raises:
        ShapeError: One of them is neither; the message names it.
    """
    wrong = (labels >= vocabulary) | ((labels < 0) & (labels != IGNORE_INDEX))
    if wrong.any():
        raise ShapeError(
            f"labels holds {int(labels[wrong][0])}; expected token ids from 0 to {vocabulary - 1}, or -100 for "
            "tokens that are not scored."
        )


def check_label_rows(labels: Tensor, questions: Tensor | None) -> None:
    """Check that there is one row of labels for every row of ``questions`` (their scores or their tokens).

    Raises:
        ShapeError: There is not.
    """
    if questions is not None and questions.dim() == 2 and len(labels) != len(questions):
        raise ShapeError(
            f"labels has {len(labels)} rows, but there are {len(questions)} questions; "
            "expected one row of labels for every question."
        )
