"""Batches of questions with their contexts, and the passages of a question in one prompt.

Notation used for tensor shapes: B questions, K passages per question, T answer tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from ragweave.modeling.generation import RagForGeneration
from ragweave.modeling.passage_cache import PassageReuse
from ragweave.provenance.posteriors import Provenance
from ragweave.retrieval.retriever import RetrievalResult

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """B questions and their contexts, ready for the generator."""

    questions: list[str]
    retrieved: RetrievalResult
    input_ids: Tensor  # (B*K, S)
    attention_mask: Tensor  # (B*K, S)
    allowed: Callable[..., list[int]] | None  # the tokens that may follow, for extractive answers
    passages: PassageReuse | None = None  # where passages end, for a causal generator


def in_order(prepare: Callable[[list[int]], T], batches: list[list[int]], *, prefetch: bool) -> Iterator[T]:
    """Prepare batches one after another; with ``prefetch``, each while the one before is in use."""
    if not prefetch:
        yield from map(prepare, batches)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ragweave-prefetch") as pool:
        pending = pool.submit(prepare, batches[0]) if batches else None
        for upcoming in [*batches[1:], None]:
            if pending is None:
                return
            batch = pending.result()
            pending = None if upcoming is None else pool.submit(prepare, upcoming)
            yield batch


def concatenated(docs: Sequence[dict[str, Any]], title_sep: str) -> list[dict[str, Any]]:
    """The K passages of each question as one, best first: a title, and all texts with the titles between them."""
    joined = []
    for doc in docs:
        parts = [part for part in zip(doc["title"], doc["text"], strict=True) if any(part)] or [("", "")]
        first, *others = parts
        texts = [first[1], *(f"{title}{title_sep}{text}" for title, text in others)]
        joined.append({"title": [first[0]], "text": ["\n\n".join(texts)]})
    return joined


def longest_prompt(model: RagForGeneration, wanted: int, max_new_tokens: int) -> int:
    """Most tokens of a prompt of all passages, which leaves a causal generator room for the answer."""
    config = model.generator.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return wanted
    return min(wanted, positions if config.is_encoder_decoder else positions - max_new_tokens)


def over_passages(provenance: Provenance, scores: Tensor) -> Provenance:
    """What an answer from one prompt says of its K passages.

    The prompt has one likelihood, p(y | x, z) for every passage z. Bayes' rule then leaves the passages what they had
    before: the posterior is the retriever's p(z|x).

    Args:
        provenance: Of B answers from one context each.
        scores: Logits of p(z|x), (B, K).
    """
    n_docs, prior = scores.shape[1], scores.softmax(-1)
    null = provenance.null_log_probs
    return replace(
        provenance,
        posterior=prior,
        token_posteriors=prior[..., None].expand(-1, -1, provenance.token_posteriors.shape[2]),
        null_log_probs=None if null is None else null.expand(-1, n_docs),
    )
