"""Batches for training a RAG model: questions, answers and, if retrieval was cached, contexts.

Notation used for tensor shapes: B questions, K passages per question, S question or context tokens, T answer tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ragweave.errors import ConfigurationError, DataError
from ragweave.modeling.parts import IGNORE_INDEX
from ragweave.pipeline.rag_pipeline import RagPipeline
from ragweave.retrieval.context_template import answer_ids
from ragweave.retrieval.rag_retriever import RagRetriever
from ragweave.types import Example

# Questions retrieved at a time; bounds the memory for passage vectors.
_RETRIEVAL_BATCH = 256


@dataclass(frozen=True, slots=True)
class RetrievedExample:
    """A question with the passages that were retrieved for it."""

    example: Example
    rows: NDArray[np.int64]  # in the index, (K,); -1 for missing passages
    doc_scores: NDArray[np.float32]  # logits of p(z|x), (K,)


def cache_retrieval(
    pipeline: RagPipeline,
    examples: Sequence[Example],
    n_docs: int,
    progress: Callable[[int], None] | None = None,
) -> list[RetrievedExample]:
    """Retrieve K passages once for every question; they stay valid while the question encoder is frozen.

    ``progress`` is called with the number of newly finished questions.
    """
    retrieved: list[RetrievedExample] = []
    for start in range(0, len(examples), _RETRIEVAL_BATCH):
        batch = examples[start : start + _RETRIEVAL_BATCH]
        result = pipeline.text_retriever.retrieve([example.question for example in batch], n_docs)
        retrieved += map(RetrievedExample, batch, result.rows, result.scores)
        if progress is not None:
            progress(len(batch))
    return retrieved


class RagCollator:
    """Makes batches of questions and answers, each with a maximum number of tokens.

    The model learns the first answer of a question, because the others are aliases. The answers of a causal generator
    start with a space and end with the end token. Raises `ConfigurationError` if a causal generator's tokenizer has
    no end token.
    """

    def __init__(
        self,
        retriever: RagRetriever,
        *,
        causal: bool,
        max_question_length: int | None = None,
        max_answer_length: int = 64,
    ) -> None:
        if causal and retriever.generator_tokenizer.eos_token_id is None:
            raise ConfigurationError(
                "The generator's tokenizer has no end token for answers: set its eos_token."
            )
        self.retriever = retriever
        self.causal = causal
        self.max_question_length = max_question_length
        self.max_answer_length = max_answer_length

    def __call__(self, examples: Sequence[Example | RetrievedExample]) -> dict[str, Tensor | list[str]]:
        """Make a batch.

        Returns:
            ``labels``, (B, T), with -100 for padding. For questions, ``input_ids`` and ``attention_mask``, (B, S),
            and their texts as ``question_strings``. With cached retrieval, instead: ``context_input_ids`` and
            ``context_attention_mask``, (B*K, S), and ``doc_scores``, (B, K).

        Raises:
            DataError: A question has no answer, or one that is too long.
        """
        retrieved = [example for example in examples if isinstance(example, RetrievedExample)]
        plain = [item.example if isinstance(item, RetrievedExample) else item for item in examples]
        answers = [self.answer_ids(example) for example in plain]
        width = max(map(len, answers))
        labels = torch.tensor([[*ids, *[IGNORE_INDEX] * (width - len(ids))] for ids in answers])
        questions = [example.question.strip() for example in plain]
        if retrieved:
            return {**self._contexts(retrieved, questions), "labels": labels}
        prompt = self.retriever.config.question_encoder_prompt or ""
        encoded = self.retriever.question_encoder_tokenizer(
            [prompt + question for question in questions],
            padding=True,
            truncation=self.max_question_length is not None,
            max_length=self.max_question_length,
            return_tensors="pt",
        )
        return {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "question_strings": questions,  # tokens of an uncased encoder do not decode to the original question
            "labels": labels,
        }

    def answer_ids(self, example: Example) -> list[int]:
        """The tokens of the answer to learn. Raises `DataError` if there is none, or it is too long."""
        location = example.where or f"question {example.id}"
        null_answer = self.retriever.config.null_answer
        if example.unanswerable and null_answer is not None:
            answer = null_answer
        elif example.answers and example.answers[0].strip():
            answer = example.answers[0]
        elif example.unanswerable:
            raise DataError(
                f"{location} is unanswerable, and the model has no answer that says so: set null_answer in its "
                "config.json, or leave such questions out of the data."
            )
        else:
            raise DataError(f"{location}: there is no answer to learn; leave the question out of the data.")
        ids = answer_ids(self.retriever.generator_tokenizer, answer, causal=self.causal)
        if len(ids) > self.max_answer_length:
            raise DataError(
                f"{location}: the answer has {len(ids)} tokens, and the limit is {self.max_answer_length}; shorten "
                "it, leave the question out, or raise --max-answer-length (max_answer_length=...)."
            )
        return ids

    def _contexts(self, retrieved: Sequence[RetrievedExample], questions: list[str]) -> dict[str, Tensor]:
        rows = np.stack([example.rows for example in retrieved])
        docs = self.retriever.index.get_doc_dicts(rows)
        ids, mask = self.retriever.postprocess_docs(
            docs, questions, None, rows.shape[1], return_tensors="pt", padding="longest"
        )
        scores = torch.from_numpy(np.stack([example.doc_scores for example in retrieved]))
        return {"context_input_ids": ids, "context_attention_mask": mask, "doc_scores": scores}
