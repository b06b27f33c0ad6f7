"""Labels: what they are aligned with, and checks of what a caller gave. For torch and TensorFlow; imports neither.

There are two conventions.

*Labels alone, seq2seq generator*: the convention of transformers' RAG, in which the facebook/rag-* checkpoints
were trained. The labels begin with a token that is read but not scored (BART's ``<s>``), and serve as decoder
input themselves: position t predicts label t+1.

*Labels with decoder input, or a causal generator*: the usual convention. Position t predicts label t; the
decoder input is the labels shifted right behind the start token (``model.shift_tokens_right(labels)``).
A single label column can only be meant this way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragweave.errors import ShapeError

# Labels that are not scored, as in torch's cross entropy.
IGNORE_INDEX = -100


@dataclass(frozen=True)
class Targets:
    """Input and targets of the decoder.

    Attributes:
        decoder_input_ids: Decoder input, (B, T).
        target_ids: The token that each position predicts, (B, T).
        scored: Which targets count, bool, (B, T).
    """

    decoder_input_ids: Any
    target_ids: Any
    scored: Any


def check_label_shapes(labels: Any, decoder_input_ids: Any) -> None:
    """Check that labels are (B, T), and the decoder input, where given, too.

    Raises:
        ShapeError: They are not.
    """
    if len(labels.shape) != 2 or labels.shape[1] == 0:
        raise ShapeError(f"labels has shape {tuple(labels.shape)}; expected (B, T).")
    if decoder_input_ids is not None and tuple(decoder_input_ids.shape) != tuple(labels.shape):
        raise ShapeError(
            f"decoder_input_ids has shape {tuple(decoder_input_ids.shape)}; expected {tuple(labels.shape)}, "
            "the shape of labels."
        )


def check_labels(labels: Any, vocabulary: int) -> None:
    """Check that labels, of torch or numpy, are token ids of the generator, or -100.

    Raises:
        ShapeError: One of them is neither; the message names it.
    """
    wrong = (labels >= vocabulary) | ((labels < 0) & (labels != IGNORE_INDEX))
    if wrong.any():
        raise ShapeError(
            f"labels holds {int(labels[wrong][0])}; expected token ids from 0 to {vocabulary - 1}, or -100 for "
            "tokens that are not scored."
        )


def check_label_rows(labels: Any, questions: Any) -> None:
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
