"""Arguments of a model's call: defaults, and checks of contexts and labels. Imports neither torch nor TensorFlow.

Notation used for tensor shapes
    B questions, K passages per question, R rows per question and passage, S context tokens, T target tokens.

Labels follow one of two conventions.

*Labels alone, seq2seq generator*: the convention of transformers' RAG, with which the facebook/rag-* checkpoints
were trained. The first label (BART's ``<s>``) is an input only, and the labels are the decoder input: position t
predicts label t+1.

*Labels with decoder input, or a causal generator*: the usual convention. Position t predicts label t. The decoder
input is the labels shifted right, behind the start token (``model.shift_tokens_right(labels)``). It also applies to
a single label column, which would have no target under the first convention.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from ragweave.errors import MissingContextError, ShapeError

# Labels that are not scored, as in torch's cross entropy.
IGNORE_INDEX = -100


def resolve_flag(value: bool | None, default: bool) -> bool:
    """The caller's value, or the configuration's if there is none."""
    return bool(default if value is None else value)


def warn_unknown(arguments: dict[str, Any]) -> None:
    """Warn of arguments of ``forward`` that have no effect; transformers ignores them in silence.

    Warns:
        UserWarning: There is one; the message names it.
    """
    unknown = [name for name in arguments if name != "token_type_ids"]  # tokenizers return these unasked
    if unknown:
        warnings.warn(
            f"forward() ignores unknown argument(s): {', '.join(unknown)}.", UserWarning, stacklevel=3
        )


def pop_prefixed(kwargs: dict[str, Any], prefix: str, *, except_for: Any) -> dict[str, Any]:
    """Move the arguments with a prefix out of ``kwargs``, except for fields of RagConfig with that prefix."""
    names = [name for name in kwargs if name.startswith(prefix) and name not in except_for]
    return {name.removeprefix(prefix): kwargs.pop(name) for name in names}


def missing_contexts(**arguments: Any) -> MissingContextError:
    """The error for a call without contexts to a model without a retriever; it names the arguments that are None."""
    missing = [name for name, value in arguments.items() if value is None]
    return MissingContextError(
        f"{' and '.join(missing)} not given: pass context_input_ids, context_attention_mask and doc_scores "
        "together, or give input_ids and set a retriever with set_retriever(...)."
    )


def check_contexts(input_ids: Any, attention_mask: Any, doc_scores: Any, n_docs: int | None) -> None:
    """Check that contexts, (B*K, S), their mask and their scores, (B, K), agree.

    Raises:
        ShapeError: They do not.
    """
    if len(input_ids.shape) != 2:
        raise ShapeError(f"context_input_ids has shape {tuple(input_ids.shape)}; expected (B*K, S).")
    if None in (*input_ids.shape, *doc_scores.shape):  # sizes that a TensorFlow graph does not know yet
        return
    check_n_docs(n_docs, doc_scores, input_ids.shape[0])
    check_mask(attention_mask, *input_ids.shape)


def check_n_docs(n_docs: int | None, doc_scores: Any, rows: int | None) -> None:
    """Check that the caller's K, passage scores, (B, K), and the number of contexts, B*K, agree.

    Raises:
        ShapeError: They do not.
    """
    shape = tuple(doc_scores.shape)
    if len(shape) != 2 or not shape[1]:
        raise ShapeError(f"doc_scores has shape {shape}; expected (B, K).")
    questions, k = shape
    if n_docs is not None and n_docs != k:
        raise ShapeError(f"doc_scores has shape {shape}, but n_docs={n_docs}: expected (B, {n_docs}).")
    if rows is None:
        return
    if rows % k:
        raise ShapeError(f"context_input_ids has {rows} rows; expected a multiple of n_docs={k}.")
    if rows != questions * k:
        raise ShapeError(
            f"context_input_ids has {rows} rows, but doc_scores has shape {shape}: expected {questions * k} "
            "rows (B*K)."
        )


def check_mask(context_attention_mask: Any, rows: int, columns: int | None) -> None:
    """Check that the mask has the shape of the contexts.

    Raises:
        ShapeError: The shapes differ.
    """
    expected = (rows, columns if columns is not None else context_attention_mask.shape[-1])
    if tuple(context_attention_mask.shape) != expected:
        raise ShapeError(
            f"context_attention_mask has shape {tuple(context_attention_mask.shape)}; expected {expected}, "
            "the shape of context_input_ids."
        )


def check_scores(doc_scores: Any) -> None:
    """Check that every question has a passage.

    Args:
        doc_scores: Passage scores, (B, K), of torch or numpy.

    Raises:
        ShapeError: A row consists of -inf only.
    """
    has_passage = (doc_scores != float("-inf")).any(1).tolist()
    if not all(has_passage):
        raise ShapeError(
            f"doc_scores is -inf for all passages of question {has_passage.index(False)}; expected one passage "
            "at least."
        )


def check_decoder_rows(tokens: Any, doc_scores: Any, name: str) -> None:
    """Check that decoder input, (B*R, T), has R rows for each of B questions.

    Raises:
        ShapeError: It has not.
    """
    rows, questions = tokens.shape[0], doc_scores.shape[0]
    if None not in (rows, questions) and rows % questions:
        raise ShapeError(f"{name} has {rows} rows, but there are {questions} questions; expected B rows.")


def longest_context(context_attention_mask: Any) -> int:
    """One more than the last column in which any row of a mask, (B*K, S), has a token; 1 at least."""
    used = (context_attention_mask != 0).any(0).tolist()
    return max((column for column, is_used in enumerate(used, start=1) if is_used), default=1)


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
    """Check that labels, and the decoder input if there is one, are (B, T).

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
