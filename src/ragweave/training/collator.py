"""From questions and answers to what a RAG model is trained on.

Notation used for tensor shapes: B questions, S question tokens, T answer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ragweave.errors import ConfigurationError, DataError
from ragweave.evaluation.data import Example
from ragweave.marginalization import IGNORE_INDEX


class RagCollator:
    """Makes batches of questions and answers.

    Of several answers the first is what the model learns to say: the data's own wording, where others are aliases.

    Args:
        question_tokenizer: The question encoder's tokenizer.
        generator_tokenizer: The generator's tokenizer.
        causal: Whether the generator is causal: its answers then begin with a space and end with the end token.
        max_question_length: The most tokens of a question.
        max_answer_length: The most tokens of an answer.

    Raises:
        ConfigurationError: A causal generator's tokenizer has no end token, which answers are to end with.
    """

    def __init__(
        self,
        question_tokenizer: Any,
        generator_tokenizer: Any,
        *,
        causal: bool,
        max_question_length: int | None = None,
        max_answer_length: int = 64,
    ) -> None:
        if causal and generator_tokenizer.eos_token_id is None:
            raise ConfigurationError("The generator's tokenizer has no end token for answers to end with.")
        self.question_tokenizer = question_tokenizer
        self.generator_tokenizer = generator_tokenizer
        self.causal = causal
        self.max_question_length = max_question_length
        self.max_answer_length = max_answer_length

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Make a batch.

        Returns:
            ``input_ids`` and ``attention_mask`` of the questions, (B, S), and ``labels``, (B, T), of which -100 is
            not scored.

        Raises:
            DataError: A question has no answer to learn.
        """
        questions = self.question_tokenizer(
            [example.question for example in examples],
            padding=True,
            truncation=self.max_question_length is not None,
            max_length=self.max_question_length,
            return_tensors="pt",
        )
        rows = [self._answer(example) for example in examples]
        width = max(map(len, rows))
        labels = torch.tensor([[*row, *[IGNORE_INDEX] * (width - len(row))] for row in rows])
        return {
            "input_ids": questions["input_ids"],
            "attention_mask": questions["attention_mask"],
            "labels": labels,
        }

    def _answer(self, example: Example) -> list[int]:
        if not example.answers:
            raise DataError(
                f"The {example.where or example.id} has no answer to learn: leave the question out of the data."
            )
        answer = example.answers[0]
        if not self.causal:
            ids: list[int] = self.generator_tokenizer(
                answer, truncation=True, max_length=self.max_answer_length
            )["input_ids"]
            return ids
        ids = self.generator_tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
        return [*ids[: self.max_answer_length - 1], self.generator_tokenizer.eos_token_id]
