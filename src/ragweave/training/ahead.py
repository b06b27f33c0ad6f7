"""Retrieval before training: what stays the same while the question encoder keeps its weights is done once.

Notation used for tensor shapes: N questions, K passages per question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from ragweave.types import Example

if TYPE_CHECKING:
    from ragweave.pipeline.rag_pipeline import RagPipeline

_AT_ONCE = 256
"""Questions whose passages' vectors are in memory together."""


@dataclass(frozen=True, slots=True)
class RetrievedExample:
    """A question with what was retrieved for it.

    Attributes:
        example: The question and what is right.
        rows: Rows of its passages in the index, (K,), -1 where there is none.
        doc_scores: Their scores, the logits of p(z|x), (K,).
    """

    example: Example
    rows: NDArray[np.int64]
    doc_scores: NDArray[np.float32]


class RetrievedExamples(Sequence[RetrievedExample]):
    """Questions with what was retrieved for them, 12 bytes a passage.

    Args:
        examples: The questions.
        rows: Rows of their passages, (N, K).
        doc_scores: Their scores, (N, K).
    """

    def __init__(
        self, examples: Sequence[Example], rows: NDArray[np.int64], doc_scores: NDArray[np.float32]
    ) -> None:
        self.examples = examples
        self.rows = rows
        self.doc_scores = doc_scores

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, place: int) -> RetrievedExample: ...
    @overload
    def __getitem__(self, place: slice) -> RetrievedExamples: ...
    def __getitem__(self, place: int | slice) -> RetrievedExample | RetrievedExamples:
        if isinstance(place, slice):
            return RetrievedExamples(self.examples[place], self.rows[place], self.doc_scores[place])
        return RetrievedExample(self.examples[place], self.rows[place], self.doc_scores[place])


def retrieve_ahead(
    pipeline: RagPipeline,
    examples: Sequence[Example],
    n_docs: int,
    progress: Callable[[int], None] | None = None,
) -> RetrievedExamples:
    """Retrieve K passages for every question.

    Args:
        pipeline: The model with its retriever, and the encoder of questions.
        examples: The questions.
        n_docs: K.
        progress: Called with how many more are done.

    Raises:
        QuestionError: A question is empty, or longer than the encoder reads.
    """
    retriever = pipeline.text_retriever
    rows = np.empty((len(examples), n_docs), dtype=np.int64)
    scores = np.empty((len(examples), n_docs), dtype=np.float32)
    for start in range(0, len(examples), _AT_ONCE):
        chunk = slice(start, start + _AT_ONCE)
        questions = [example.question for example in examples[chunk]]
        result = retriever.retrieve(questions, n_docs)
        rows[chunk], scores[chunk] = result.rows, result.scores
        if progress is not None:
            progress(len(questions))
    return RetrievedExamples(examples, rows, scores)
