"""What a training run is told beside what transformers' Trainer is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from transformers import TrainingArguments

from ragweave.errors import ConfigurationError


@dataclass
class RagTrainingArguments(TrainingArguments):
    """Arguments of `RagTrainer`: those of transformers' Trainer, and these.

    Attributes:
        n_docs: K, passages per question; the model's where ``None``.
        freeze: What keeps its weights: ``"question-encoder"``, ``"generator"`` or nothing.
        retriever_loss: A loss of `ragweave.training.losses` that teaches the question encoder beside the marginal
            likelihood: ``"emdr2"``, ``"pdist"`` or ``"loop"``.
        retriever_loss_weight: What it counts.
        eval_max_new_tokens: The longest answer when evaluating, in tokens.
        eval_questions: At most so many questions are answered in each evaluation; all where ``None``.
    """

    n_docs: int | None = None
    freeze: Literal["question-encoder", "generator"] | None = None
    retriever_loss: Literal["emdr2", "pdist", "loop"] | None = None
    retriever_loss_weight: float = 1.0
    eval_max_new_tokens: int = field(default=32)
    eval_questions: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments.

        Raises:
            ConfigurationError: One of them cannot work.
        """
        # The collator makes batches of examples, which have no columns to be left out.
        self.remove_unused_columns = False
        super().__post_init__()
        if self.freeze not in (None, "question-encoder", "generator"):
            raise ConfigurationError(
                f"freeze is {self.freeze!r}; choose 'question-encoder', 'generator' or nothing."
            )
        if self.retriever_loss not in (None, "emdr2", "pdist", "loop"):
            raise ConfigurationError(
                f"retriever_loss is {self.retriever_loss!r}; choose 'emdr2', 'pdist', 'loop' or none."
            )
        if self.n_docs is not None and self.n_docs < 1:
            raise ConfigurationError(f"n_docs is {self.n_docs}; it must be 1 or more.")
