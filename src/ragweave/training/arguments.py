"""What a training run is told beside what transformers' Trainer is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from transformers import TrainingArguments

from ragweave.errors import ConfigurationError

Freeze = Literal["question-encoder", "generator"]
RetrieverLoss = Literal["adist", "emdr2", "pdist", "loop"]


@dataclass
class RagTrainingArguments(TrainingArguments):
    """Arguments of `RagTrainer`: those of transformers' Trainer, and these.

    Attributes:
        n_docs: K, passages per question; the model's where ``None``.
        freeze: What keeps its weights: ``"question-encoder"``, ``"generator"`` or nothing.
        retriever_loss: A loss of `ragweave.training.losses` that teaches the retriever beside the marginal
            likelihood: ``"adist"``, ``"emdr2"``, ``"pdist"`` or ``"loop"``.
        retriever_loss_weight: What it counts.
        retriever_learning_rate: Of the question encoder and the document encoder; ``learning_rate`` where
            ``None``. An adapter learns at ten times the rate that would ruin an encoder.
        max_answer_length: The longest answer to learn, in tokens.
        retrieve_ahead: Retrieve for all questions before the first step, and make contexts in the processes that load
            data; only while the question encoder keeps its weights, where ``None`` means yes.
        end_to_end: Train the document encoder too, and let the index follow it.
        document_encoder: Folder or hub name of the encoder that embedded the passages; where ``None``, the knowledge
            base names it.
        refresh_steps: Steps between two refreshes of the index; at the ends of epochs where ``None``.
        refresh_in_background: Whether training goes on while the index is refreshed.
        refresh_engine: Where the passages are embedded: ``"local"`` for a process, ``"ray"`` for a cluster's workers.
        refresh_workers: With Ray, how many.
        refresh_address: With Ray, a cluster that is running; one is started here where ``None``.
        refresh_device: Without Ray, where that process computes, such as ``"cuda:1"``.
        eval_max_new_tokens: The longest answer when evaluating, in tokens.
        eval_questions: At most so many questions are answered in each evaluation; all where ``None``.
    """

    n_docs: int | None = None
    freeze: Freeze | None = None
    retriever_loss: RetrieverLoss | None = None
    retriever_loss_weight: float = 1.0
    retriever_learning_rate: float | None = None
    max_answer_length: int = 64
    retrieve_ahead: bool | None = None
    end_to_end: bool = False
    document_encoder: str | None = None
    refresh_steps: int | None = None
    refresh_in_background: bool = True
    refresh_engine: Literal["local", "ray"] = "local"
    refresh_workers: int = 2
    refresh_address: str | None = None
    refresh_device: str | None = None
    eval_max_new_tokens: int = 32
    eval_questions: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments.

        Raises:
            ConfigurationError: One of them cannot work.
        """
        # The collator makes batches of examples, which have no columns to be left out.
        self.remove_unused_columns = False
        super().__post_init__()
        for name, words in (("freeze", Freeze), ("retriever_loss", RetrieverLoss)):
            given = getattr(self, name)
            if given is not None and given not in get_args(words):
                raise ConfigurationError(
                    f"{name} is {given!r}; choose one of {', '.join(get_args(words))}, or none."
                )
        if self.refresh_engine not in ("local", "ray"):
            raise ConfigurationError(f"refresh_engine is {self.refresh_engine!r}; choose 'local' or 'ray'.")
        for name in ("n_docs", "refresh_steps", "refresh_workers", "max_answer_length"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise ConfigurationError(f"{name} is {given}; it must be 1 or more.")
        trained = self.end_to_end or self.freeze != "question-encoder"
        self._refuse_what_does_nothing(trained)
        if self.n_gpu > 1:
            # nn.DataParallel would divide tensors and not the questions' texts; more devices take more processes.
            self._n_gpu = 1
        if self.retrieve_ahead and trained:
            raise ConfigurationError(
                "retrieve_ahead retrieves before training: it needs freeze='question-encoder', and no end_to_end."
            )
        if self.retrieve_ahead is None:
            self.retrieve_ahead = not trained

    def _refuse_what_does_nothing(self, trained: bool) -> None:
        for name in ("retriever_loss", "retriever_learning_rate"):
            if getattr(self, name) is not None and not trained:
                raise ConfigurationError(
                    f"{name} is for the encoders, and freeze='question-encoder' keeps the only one: leave out one "
                    "of them."
                )
        given = {
            "refresh_steps": self.refresh_steps is not None,
            "document_encoder": self.document_encoder is not None,
            "refresh_engine": self.refresh_engine != "local",
        }
        idle = next((name for name, there in given.items() if there), None)
        if idle is not None and not self.end_to_end:
            raise ConfigurationError(
                f"{idle} is for training end to end: add end_to_end (--end-to-end), or leave it out."
            )
        if self.label_smoothing_factor:
            raise ConfigurationError(
                "label_smoothing_factor is of transformers' own loss: set the model's label_smoothing (RagConfig) "
                "instead."
            )

    @property
    def refresh_options(self) -> list[str]:
        """Options of ``ragweave reembed`` for refreshes of the index."""
        if self.refresh_engine == "local":
            return [] if self.refresh_device is None else ["--device", self.refresh_device]
        options = ["--engine", "ray", "--workers", str(self.refresh_workers)]
        return options if self.refresh_address is None else [*options, "--ray-address", self.refresh_address]
