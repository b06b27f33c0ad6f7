"""The arguments of a training run, in addition to those of transformers' Trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from transformers import TrainingArguments

from ragweave.errors import ConfigurationError, require_extra

Freeze = Literal["question-encoder", "generator"]
RetrieverLossName = Literal["adist", "emdr2", "pdist", "loop"]
RefreshEngine = Literal["local", "ray"]


@dataclass
class RagTrainingArguments(TrainingArguments):
    """Arguments of `RagTrainer`, in addition to those of transformers' Trainer.

    Attributes:
        n_docs: K, passages per question; by default the model's.
        freeze: The part to freeze: ``"question-encoder"``, ``"generator"`` or nothing.
        retriever_loss: A loss of `ragweave.training.losses` to add to the marginal likelihood, for the retriever:
            ``"adist"``, ``"emdr2"``, ``"pdist"`` or ``"loop"``.
        retriever_loss_weight: Weight of the retriever loss.
        retriever_learning_rate: Learning rate of the encoders; by default ``learning_rate``. An adapter needs about
            ten times the learning rate that an encoder tolerates.
        max_answer_length: Maximum length of an answer to train on, in tokens.
        retrieve_ahead: Retrieve once, before the first step, so that the data loader's processes prepare the
            contexts. The default with a frozen question encoder, which it needs.
        end_to_end: Also train the document encoder, and refresh the index with it.
        document_encoder: Folder or hub name of the encoder that embedded the passages; by default the one named in
            the knowledge base.
        refresh_steps: Steps between two refreshes of the index; by default one refresh after each epoch.
        refresh_in_background: Whether training continues while the index is refreshed.
        refresh_engine: What embeds the passages: ``"local"``, one process, or ``"ray"``, the workers of a cluster.
        refresh_workers: Number of Ray workers.
        refresh_address: Address of a running Ray cluster; by default one is started on this machine.
        refresh_device: Device of the local process, such as ``"cuda:1"``.
        eval_max_new_tokens: Maximum length of an answer in an evaluation, in tokens.
        eval_questions: Maximum number of questions to answer in an evaluation; by default all.

    Raises:
        MissingExtraError: The extra ``train`` is not installed.
        ConfigurationError: An argument is invalid, or has no effect with the others.
    """

    n_docs: int | None = None
    freeze: Freeze | None = None
    retriever_loss: RetrieverLossName | None = None
    retriever_loss_weight: float = 1.0
    retriever_learning_rate: float | None = None
    max_answer_length: int = 64
    retrieve_ahead: bool | None = None
    end_to_end: bool = False
    document_encoder: str | None = None
    refresh_steps: int | None = None
    refresh_in_background: bool = True
    refresh_engine: RefreshEngine = "local"
    refresh_workers: int = 2
    refresh_address: str | None = None
    refresh_device: str | None = None
    eval_max_new_tokens: int = 32
    eval_questions: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        require_extra("accelerate", "train")
        # Trainer would remove columns that the model does not use, but the examples have no columns.
        self.remove_unused_columns = False
        super().__post_init__()
        types = {"freeze": Freeze, "retriever_loss": RetrieverLossName, "refresh_engine": RefreshEngine}
        for name, literal in types.items():
            value, choices = getattr(self, name), get_args(literal)
            if value is not None and value not in choices:
                raise ConfigurationError(f"{name} is {value!r}; choose one of: {', '.join(choices)}.")
        for name in ("n_docs", "refresh_steps", "refresh_workers", "max_answer_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} is {value}; it must be 1 or more.")
        if self.retrieve_ahead is None:
            self.retrieve_ahead = self.retriever_is_frozen
        self._reject_without_effect()

    @property
    def n_gpu(self) -> int:
        """At most 1. nn.DataParallel would split tensors but not the questions' texts; use one process per device."""
        return min(int(super().n_gpu), 1)

    @property
    def retriever_is_frozen(self) -> bool:
        """Whether no encoder is trained."""
        return self.freeze == "question-encoder" and not self.end_to_end

    def _reject_without_effect(self) -> None:
        if self.retrieve_ahead and not self.retriever_is_frozen:
            raise ConfigurationError(
                "retrieve_ahead retrieves before training: it needs freeze='question-encoder', and no end_to_end."
            )
        for name in ("retriever_loss", "retriever_learning_rate"):
            if getattr(self, name) is not None and self.retriever_is_frozen:
                raise ConfigurationError(
                    f"{name} is for the encoders, and freeze='question-encoder' freezes the only one: leave out one "
                    "of the two."
                )
        defaults = {"refresh_steps": None, "document_encoder": None, "refresh_engine": "local"}
        for name, default in defaults.items():
            if getattr(self, name) != default and not self.end_to_end:
                raise ConfigurationError(
                    f"{name} is for training end to end: add end_to_end (--end-to-end), or leave it out."
                )
        if self.label_smoothing_factor:
            raise ConfigurationError(
                "label_smoothing_factor belongs to transformers' own loss: set the model's label_smoothing "
                "(RagConfig) instead."
            )
