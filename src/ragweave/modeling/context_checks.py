"""Do a caller's contexts, mask and scores agree? Only shapes are looked at, of whatever framework's tensors."""

from __future__ import annotations

from typing import Any

from ragweave.errors import MissingContextError, ShapeError


def missing_contexts(**given: Any) -> MissingContextError:
    """The error of a caller who gave a model without a retriever less than it needs; names what is missing."""
    missing = [name for name, value in given.items() if value is None]
    return MissingContextError(
        f"{' and '.join(missing)} not given: pass context_input_ids, context_attention_mask and doc_scores "
        "together, or give input_ids and set a retriever with set_retriever(...)."
    )


def resolve_n_docs(n_docs: int | None, default: int, doc_scores: Any, rows: int | None) -> int:
    """Find K, the number of passages per question, and check that the arguments agree on it.

    Args:
        n_docs: What the caller asked for, if anything.
        default: ``config.n_docs``, used where neither the caller nor the scores tell.
        doc_scores: Passage scores, (B, K), where given.
        rows: Number of contexts, B*K, where given.

    Raises:
        ShapeError: Scores, contexts and ``n_docs`` disagree.
    """
    if doc_scores is None:
        k = n_docs if n_docs is not None else default
    else:
        if len(doc_scores.shape) != 2 or not doc_scores.shape[1]:
            raise ShapeError(f"doc_scores has shape {tuple(doc_scores.shape)}; expected (B, K).")
        k = doc_scores.shape[1]
        if n_docs is not None and n_docs != k:
            raise ShapeError(
                f"doc_scores has shape {tuple(doc_scores.shape)}, but n_docs={n_docs}: expected (B, {n_docs})."
            )
    if rows is not None:
        if rows % k:
            raise ShapeError(f"context_input_ids has {rows} rows; expected a multiple of n_docs={k}.")
        if doc_scores is not None and rows != doc_scores.shape[0] * k:
            raise ShapeError(
                f"context_input_ids has {rows} rows, but doc_scores has shape {tuple(doc_scores.shape)}: "
                f"expected {doc_scores.shape[0] * k} rows (B*K)."
            )
    return k


def check_mask(context_attention_mask: Any, rows: int, columns: int | None) -> None:
    """Check the mask's shape against the contexts'.

    Raises:
        ShapeError: They differ.
    """
    expected = (rows, columns if columns is not None else context_attention_mask.shape[-1])
    if tuple(context_attention_mask.shape) != expected:
        raise ShapeError(
            f"context_attention_mask has shape {tuple(context_attention_mask.shape)}; expected {expected}, "
            "the shape of context_input_ids."
        )
