"""From questions and answers to what a RAG model is trained on.

Notation used for tensor shapes: B questions, K passages per question, S question or context tokens, T answer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ragweave.errors import ConfigurationError, DataError
from ragweave.modeling.arguments import IGNORE_INDEX
from ragweave.training.ahead import RetrievedExample
from ragweave.types import Example

if TYPE_CHECKING:
    from ragweave.retrieval.rag_retriever import RagRetriever


class RagCollator:
    """Makes batches of questions and answers, with contexts where passages have been retrieved already.

    Of several answers the first is what the model learns to say: the data's own wording, where others are aliases.

    Args:
        retriever: The model's retriever, whose tokenizers are used; looks passages up for those that were retrieved.
        causal: Whether the generator is causal: its answers then begin with a space and end with the end token.
        max_question_length: The most tokens of a question.
        max_answer_length: The most tokens of an answer.

    Raises:
        ConfigurationError: A causal generator's tokenizer has no end token, which answers are to end with.
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
            raise ConfigurationError("The generator's tokenizer has no end token for answers to end with.")
        self.retriever = retriever
        self.causal = causal
        self.max_question_length = max_question_length
        self.max_answer_length = max_answer_length

    def __call__(self, examples: Sequence[Example | RetrievedExample]) -> dict[str, Tensor | list[str]]:
        """Make a batch.

        Returns:
            ``labels``, (B, T), of which -100 is not scored; of the questions ``input_ids`` and ``attention_mask``,
            (B, S), and their texts as ``question_strings``; where passages have been retrieved, in place of these
            ``context_input_ids`` and ``context_attention_mask``, (B*K, S), with ``doc_scores``, (B, K).

        Raises:
            DataError: A question has no answer to learn, or one that is too long.
        """
        retrieved = [example for example in examples if isinstance(example, RetrievedExample)]
        plain = [own.example if isinstance(own, RetrievedExample) else own for own in examples]
        rows = [self.answer_ids(example) for example in plain]
        width = max(map(len, rows))
        labels = torch.tensor([[*row, *[IGNORE_INDEX] * (width - len(row))] for row in rows])
        questions = [example.question.strip() for example in plain]
        if retrieved:
            return {**self._contexts(retrieved, questions), "labels": labels}
        encoded = self.retriever.question_encoder_tokenizer(
            questions,
            padding=True,
            truncation=self.max_question_length is not None,
            max_length=self.max_question_length,
            return_tensors="pt",
        )
        return {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "question_strings": questions,  # what is decoded from an encoder without capitals has none
            "labels": labels,
        }

    def answer_ids(self, example: Example) -> list[int]:
        """The tokens of the answer that is learned.

        Raises:
            DataError: There is none, or it is too long.
        """
        place = example.where or f"question {example.id}"
        if not example.answers or not example.answers[0].strip():
            raise DataError(f"{place}: there is no answer to learn; leave the question out of the data.")
        text = f" {example.answers[0]}" if self.causal else example.answers[0]
        tokenizer = self.retriever.generator_tokenizer
        ids: list[int] = tokenizer(text, add_special_tokens=not self.causal, truncation=False)["input_ids"]
        if self.causal:
            ids = [*ids, tokenizer.eos_token_id]
        if len(ids) > self.max_answer_length:
            raise DataError(
                f"{place}: the answer has {len(ids)} tokens, of which {self.max_answer_length} are learned; shorten "
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
