"""Questions in, passages out: what comes before an answer, for those who want nothing else.

Notation used for tensor shapes: B questions, K passages per question, D vector size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragweave.errors import QuestionError

if TYPE_CHECKING:
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
    from ragweave.retrieval.index_protocol import Hits


def question_length(encoder: TextEncoder, question: str) -> int:
    """A question's length in tokens of the encoder.

    Raises:
        QuestionError: It is empty, or longer than the encoder reads.
    """
    if not question.strip():
        raise QuestionError("The question is empty; ask something.")
    length = encoder.token_count(question)
    if encoder.max_length is not None and length > encoder.max_length:
        raise QuestionError(
            f"The question has {length} tokens, but the encoder reads {encoder.max_length}: ask a shorter "
            f"one. It begins {question.strip()[:60]!r}."
        )
    return length


@dataclass(frozen=True)
class PassageFinder:
    """Finds passages of a knowledge base for questions.

    Attributes:
        encoder: Encoder of the questions.
        index: The knowledge base, and how it is searched.
        doc_score_scale: What inner products are multiplied with to be logits of p(z|x).

    Example:
        ```python
        finder = RagPipeline.from_pretrained("embedded", knowledge_base="kb").finder
        hits = finder.retrieve(["What is the capital of Mongolia?"], 5)
        print(finder.docs(hits)[0]["title"])
        ```
    """

    encoder: TextEncoder
    index: KnowledgeBaseIndex
    doc_score_scale: float

    def retrieve(self, questions: Sequence[str], n_docs: int) -> Hits:
        """Find K passages for each of B questions.

        Raises:
            QuestionError: A question is empty, or longer than the encoder reads.
            ConfigurationError: ``n_docs`` is below 1.
        """
        for question in questions:
            question_length(self.encoder, question)
        stripped = [question.strip() for question in questions]
        return self.index.get_hits(
            self.encoder.encode(stripped), n_docs, questions=stripped, doc_score_scale=self.doc_score_scale
        )

    def docs(self, hits: Hits) -> list[dict[str, Any]]:
        """Look passages up: B dictionaries of lists of length K, see `KnowledgeBaseIndex.get_doc_dicts`."""
        return self.index.get_doc_dicts(hits.rows)
