"""RagTrainer: transformers' Trainer on the marginal likelihood of RAG models.

Notation used for tensor shapes: B questions, K passages per question.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerControl
from transformers.trainer_utils import TrainOutput

from ragweave.errors import ConfigurationError
from ragweave.evaluation.data import Example
from ragweave.evaluation.metrics import exact_match, f1
from ragweave.training.arguments import RagTrainingArguments
from ragweave.training.collator import RagCollator

if TYPE_CHECKING:
    from ragweave.pipeline import RagPipeline

COLLAPSED_BELOW = 0.05
"""A retriever that gives fewer distinct passages than this share of what it could has collapsed."""


class RagTrainer(Trainer):
    """Trains question encoder and generator together; documents and their index stay as they are.

    The paper's recipe (Lewis et al. 2020, section 2.4): the loss is the mean over questions of -log p(y|x), with the
    passages marginalised out, so that gradient reaches the generator through p(y|x,z) and the question encoder
    through p(z|x). Optimiser, schedule, mixed precision, accumulation, checkpoints, resuming, logging and more than
    one process are those of transformers' Trainer.

    Args:
        pipeline: The model, its retriever and the encoder of questions, which are trained in place.
        args: Arguments of the run.
        train_dataset: Questions and answers to learn.
        eval_dataset: Questions and answers to evaluate on.
        **kwargs: Handed on to transformers' Trainer.

    Raises:
        ConfigurationError: Nothing is left to train.
    """

    def __init__(
        self,
        pipeline: RagPipeline,
        args: RagTrainingArguments,
        train_dataset: Sequence[Example] | None = None,
        eval_dataset: Sequence[Example] | None = None,
        **kwargs: Any,
    ) -> None:
        model = pipeline.model
        model.set_retriever(pipeline.retriever)
        if args.n_docs is not None:
            model.config.n_docs = args.n_docs
        _freeze(model, args.freeze)
        collator = RagCollator(
            pipeline.encoder.tokenizer,
            pipeline.retriever.generator_tokenizer,
            causal=model.config.generator_is_causal,
            max_question_length=pipeline.encoder.max_length,
        )
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            **kwargs,
        )
        self.pipeline = pipeline

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train as transformers' Trainer does, and leave the model ready to answer.

        Args:
            *args: Handed on, as ``resume_from_checkpoint``.
            **kwargs: Handed on.
        """
        try:
            return super().train(*args, **kwargs)
        finally:
            self.model.eval()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The mean over questions of -log p(y|x), and of the retriever's own loss where one was chosen."""
        output = model(**inputs, reduce_loss=False)
        loss = output.loss.as_subclass(Tensor).mean()
        if self.args.retriever_loss is not None and model.training:
            loss = loss + self.args.retriever_loss_weight * self._retriever_loss(output, inputs["labels"])
        return (loss, output) if return_outputs else loss

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Answer the questions and measure the answers and what was retrieved.

        Returns:
            Under names that begin with the prefix: ``loss``, the mean of -log p(y|x) of the gold answers;
            ``exact_match``, ``f1``; ``recall`` of gold passages among the K, where they are known; ``top_mass``, the
            posterior's share on the best passage; ``distinct``, how many different passages were retrieved, as a
            share of how many there could have been.

        Warns:
            UserWarning: The retriever has collapsed: nearly all questions get the same passages.
        """
        dataset: list[Example] = list(self.eval_dataset if eval_dataset is None else eval_dataset)
        chosen = dataset[: self.args.eval_questions]
        begun = time.perf_counter()
        training = self.model.training
        self.model.eval()
        try:
            figures = {"loss": self._loss_of(chosen), **self._answered(chosen)}
        finally:
            self.model.train(training)
        figures["runtime"] = time.perf_counter() - begun
        named = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(named)
        control = self.callback_handler.on_evaluate(self.args, self.state, self.control, named)
        self.control: TrainerControl = control
        return named

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model with its tokenizers: a folder that `ask`, `eval` and `from_pretrained` take."""
        from ragweave.tokenization import RagTokenizer

        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            retriever = self.pipeline.retriever
            RagTokenizer(retriever.question_encoder_tokenizer, retriever.generator_tokenizer).save_pretrained(
                folder
            )

    def _retriever_loss(self, output: Any, labels: Tensor) -> Tensor:
        from ragweave.modeling.token import RagTokenForGeneration
        from ragweave.training.losses import LOSSES, Formulation, LossInputs

        model = self.accelerator.unwrap_model(self.model)
        own, scored = model.per_passage_log_probs(labels, output.logits, output.doc_scores.shape[1])
        formulation: Formulation = "token" if isinstance(model, RagTokenForGeneration) else "sequence"
        return LOSSES[self.args.retriever_loss](LossInputs(output.doc_scores, own, scored, formulation))

    @torch.no_grad()
    def _loss_of(self, examples: Sequence[Example]) -> float:
        total = 0.0
        size = self.args.per_device_eval_batch_size
        for start in range(0, len(examples), size):
            batch = self._prepare_inputs(self.data_collator(examples[start : start + size]))
            with self.compute_loss_context_manager():
                total += float(self.model(**batch, reduce_loss=True).loss)
        return total / max(len(examples), 1)

    def _answered(self, examples: Sequence[Example]) -> dict[str, float]:
        answers = self.pipeline(
            [example.question for example in examples],
            max_new_tokens=self.args.eval_max_new_tokens,
            batch_size=self.args.per_device_eval_batch_size,
        )
        pairs = list(zip(examples, answers, strict=True))
        found = [{passage.id for passage in answer.passages} for answer in answers]
        possible = sum(map(len, found))
        distinct = len(set().union(*found)) / max(min(possible, len(self.pipeline.finder.index)), 1)
        if len(examples) > 1 / COLLAPSED_BELOW and distinct < COLLAPSED_BELOW:
            warnings.warn(
                f"The retriever has collapsed: {len(examples)} questions got {len(set().union(*found))} different "
                "passages. Lower the learning rate, freeze the question encoder (freeze='question-encoder'), or "
                "begin with one that was trained for retrieval.",
                UserWarning,
                stacklevel=2,
            )
        recalls = [
            float(any({own, own.rpartition("#")[0]} & set(example.gold_passages) for own in ids))
            for (example, _), ids in zip(pairs, found, strict=True)
            if example.gold_passages
        ]
        return {
            "exact_match": _mean([exact_match(answer.answer, example.answers) for example, answer in pairs]),
            "f1": _mean([f1(answer.answer, example.answers) for example, answer in pairs]),
            **({"recall": _mean(recalls)} if recalls else {}),
            "top_mass": _mean([max(own.posterior for own in answer.passages) for answer in answers]),
            "distinct": distinct,
        }


def _freeze(model: Any, part: str | None) -> None:
    """Let one part keep its weights.

    Raises:
        ConfigurationError: Nothing is left to train.
    """
    frozen = {"question-encoder": model.question_encoder, "generator": model.generator}.get(part or "")
    if frozen is not None:
        frozen.requires_grad_(False)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ConfigurationError("Nothing is left to train: freeze less.")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
