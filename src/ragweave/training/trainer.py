"""RagTrainer: transformers' Trainer on the marginal likelihood of RAG models.

Notation used for tensor shapes: B questions, K passages per question.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import TrainerControl
from transformers.trainer_utils import TrainOutput

from ragweave.errors import ConfigurationError, DataError, QuestionError
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
from ragweave.training.ahead import RetrievedExamples, retrieve_ahead
from ragweave.training.arguments import RagTrainingArguments
from ragweave.training.attention import recorded_attention
from ragweave.training.collator import RagCollator
from ragweave.training.documents import document_encoder, train_documents
from ragweave.training.guards import GuardedTrainer
from ragweave.training.losses import LOSSES, CrossAttention, LossInputs
from ragweave.training.measuring import figures_of, measured
from ragweave.training.refresh import DOCUMENT_ENCODER, IndexRefresh
from ragweave.types import Example

if TYPE_CHECKING:
    from ragweave.pipeline.rag_pipeline import RagPipeline


class RagTrainer(GuardedTrainer):
    """Trains question encoder and generator together and, end to end, the document encoder and its index with them.

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

    Attributes:
        pipeline: The pipeline; after training end to end it searches the run's own knowledge base.
        refresh: What keeps the index up with the document encoder; ``None`` but end to end.
        answering: While evaluating, how many questions are answered, and of how many; callbacks hear of it in
            ``on_prediction_step``.

    Raises:
        ConfigurationError: Nothing is left to train, or arguments do not go together.
        DataError: A question has no answer to learn or one that is too long, or is itself too long.
        TrainingError: End to end, the knowledge base is not in a folder.
    """

    control: TrainerControl

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
        if isinstance(pipeline.retriever.index, KnowledgeBaseIndex):
            # What is saved searches as it was trained to, but for what a configuration cannot say (rrf, k1, b).
            settings: Any = pipeline.retriever.index.settings  # an index leaves nothing open in them
            model.config.retrieval, model.config.dense_weight = settings.kind, settings.dense_weight
        collator = RagCollator(
            pipeline.retriever,
            causal=model.config.generator_is_causal,
            max_question_length=pipeline.encoder.max_length,
            max_answer_length=args.max_answer_length,
        )
        # A mistake in the data is told now, not when its batch comes.
        for example in (*(train_dataset or ()), *(eval_dataset or ())):
            collator.answer_ids(example)
            _check_question(pipeline, example)
        self.documents = None
        if args.end_to_end:
            base = pipeline.knowledge_base
            self.documents = document_encoder(base, pipeline.encoder, args.document_encoder)
            train_documents(model, pipeline.retriever, self.documents)
        _freeze(model, args.freeze)
        _check_gradient(pipeline, args)
        self._examples = train_dataset
        dataset: Sequence[Example] | RetrievedExamples | None = train_dataset
        if train_dataset is not None and args.retrieve_ahead:
            with tqdm(total=len(train_dataset), desc="Retrieving", disable=args.disable_tqdm) as bar:
                dataset = retrieve_ahead(pipeline, train_dataset, model.config.n_docs, bar.update)
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=dataset,
            eval_dataset=eval_dataset,
            **kwargs,
        )
        self.pipeline = pipeline
        self.answering = (0, 0)
        self.refresh: IndexRefresh | None = None
        if self.documents is not None:
            self.refresh = IndexRefresh(
                pipeline.retriever,
                self.documents,
                Path(str(args.output_dir)),
                steps=args.refresh_steps,
                background=args.refresh_in_background,
                options=args.refresh_options,
                is_main=self.is_world_process_zero(),
            )
            self.add_callback(self.refresh)

    def learned(self) -> Iterable[Sequence[str]]:
        """The questions with their answers."""
        return ([example.question, *example.answers] for example in self._examples or ())

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train as `GuardedTrainer` does, and leave the model ready to answer.

        Args:
            resume_from_checkpoint: A checkpoint to go on from, or true for the last one; where there is none yet, the
                run begins.
            **kwargs: Handed on.

        Raises:
            TrainingError: The run cannot go on: loss or gradient are no numbers, a checkpoint cannot be written or is
                not whole, or the data is not that which the run was begun with.

        Warns:
            UserWarning: The last refresh of the index failed; the warning has the command that does it later.
        """
        try:
            result = super().train(resume_from_checkpoint, **kwargs)
            if self.refresh is not None:
                chosen = self.state.best_global_step if self.args.load_best_model_at_end else None
                self.refresh.finish(chosen or self.state.global_step)
            return result
        finally:
            if self.refresh is not None:
                self.refresh.stop()
            self.model.eval()

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Make the optimiser, in which the encoders have a learning rate of their own where they were given one."""
        given = self.optimizer
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        rate = self.args.retriever_learning_rate
        if given is None and rate is not None:
            generator = {id(weight) for weight in self.pipeline.model.generator.parameters()}
            optimizer.param_groups = [
                {**group, "params": weights, "lr": group["lr"] if own else rate}
                for group in optimizer.param_groups
                for own in (True, False)
                if (weights := [weight for weight in group["params"] if (id(weight) in generator) is own])
            ]
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The mean over questions of -log p(y|x), and of the retriever's own loss where one was chosen."""
        own_loss = self.args.retriever_loss if model.training else None
        plain: Any = self.accelerator.unwrap_model(model)
        attends = own_loss == "adist"
        with recorded_attention(plain.generator) if attends else nullcontext() as record:
            output = model(**inputs, reduce_loss=False, output_retrieved=attends)
        loss = output.loss.as_subclass(Tensor).mean()
        if own_loss is not None:
            k = output.doc_scores.shape[1]
            attention = None
            if record is not None:
                mask = inputs.get("context_attention_mask", output.context_attention_mask)
                attention = record.of_passages(k, mask)
            loss = loss + self.args.retriever_loss_weight * self._retriever_loss(
                plain, output, inputs["labels"], attention
            )
        return (loss, output) if return_outputs else loss

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Answer the questions, each process its share, and measure the answers and what was retrieved.

        Returns:
            Under names that begin with the prefix: ``loss``, the mean of -log p(y|x) of the gold answers;
            ``exact_match``, ``f1``; ``recall`` of gold passages among the K, where they are known; ``top_mass``, the
            posterior's share on the best passage; ``distinct``, how many different passages were retrieved, as a
            share of how many there could have been.

        Warns:
            UserWarning: The retriever has collapsed: nearly all questions get the same passages.
        """
        dataset: list[Example] = list(self.eval_dataset if eval_dataset is None else eval_dataset)
        own = dataset[: self.args.eval_questions][self.args.process_index :: self.args.world_size]
        begun = time.perf_counter()
        training = self.model.training
        self.model.eval()
        try:
            losses = gather_object(self._losses(own))
            hidden = self.args.disable_tqdm or not self.is_local_process_zero()
            self.answering = (0, len(own))
            with tqdm(total=len(own), desc="Answering", disable=hidden) as bar:

                def advance(count: int) -> None:
                    bar.update(count)
                    self.answering = (self.answering[0] + count, len(own))
                    self.control = self.callback_handler.on_prediction_step(
                        self.args, self.state, self.control
                    )

                answers = self.pipeline(
                    [example.question for example in own],
                    max_new_tokens=self.args.eval_max_new_tokens,
                    batch_size=self.args.per_device_eval_batch_size,
                    progress=advance,
                )
            rows = gather_object([measured(*pair) for pair in zip(own, answers, strict=True)])
        finally:
            self.model.train(training)
        figures = {
            "loss": sum(losses) / max(len(losses), 1),
            **figures_of(rows, len(self.pipeline.knowledge_base)),
            "runtime": time.perf_counter() - begun,
        }
        named = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(named)
        control = self.callback_handler.on_evaluate(self.args, self.state, self.control, named)
        self.control: TrainerControl = control
        return named

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log figures, and of an index that is refreshed how many steps its vectors are behind."""
        if self.refresh is not None:
            logs["index_staleness"] = self.refresh.staleness(self.state.global_step)
            logs["index_refreshes_failed"] = self.refresh.failures
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model with its tokenizers: a folder that `ask`, `eval` and `from_pretrained` take.

        End to end, the document encoder is saved below it, as `DOCUMENT_ENCODER`.
        """
        from ragweave.tokenization import RagTokenizer

        index, config = self.pipeline.retriever.index, self.pipeline.model.config
        if self.documents is not None and not _internal_call:
            self.documents.__dict__.pop("fingerprint", None)  # of before training
            config.passage_encoder_fingerprint = self.documents.fingerprint
        elif isinstance(index, KnowledgeBaseIndex):  # of a checkpoint, the encoder of the last refresh
            config.passage_encoder_fingerprint = index.base.manifest.encoder.fingerprint
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            retriever = self.pipeline.retriever
            RagTokenizer(retriever.question_encoder_tokenizer, retriever.generator_tokenizer).save_pretrained(
                folder
            )
            if self.documents is not None and not _internal_call:
                self.documents.save_pretrained(folder / DOCUMENT_ENCODER)

    def _retriever_loss(
        self, model: Any, output: Any, labels: Tensor, attention: CrossAttention | None
    ) -> Tensor:
        own, scored = model.per_passage_log_probs(labels, output.logits, output.doc_scores.shape[1])
        inputs = LossInputs(output.doc_scores, own, scored, self.pipeline.formulation, attention)
        return LOSSES[self.args.retriever_loss](inputs)

    @torch.no_grad()
    def _losses(self, examples: Sequence[Example]) -> list[float]:
        """-log p(y|x) of each question's gold answer."""
        losses: list[float] = []
        size = self.args.per_device_eval_batch_size
        for start in range(0, len(examples), size):
            batch = self._prepare_inputs(self.data_collator(examples[start : start + size]))
            with self.compute_loss_context_manager():
                losses += self.model(**batch, reduce_loss=False).loss.tolist()
        return losses


def _check_question(pipeline: RagPipeline, example: Example) -> None:
    """Check that a question can be retrieved for, and that it fits into a context.

    Raises:
        DataError: It is empty, or too long for the encoder or the generator.
    """
    try:
        pipeline.encoder.question_length(example.question)
        nothing = [{"title": [""], "text": [""]}]
        pipeline.retriever.postprocess_docs(nothing, [example.question.strip()], None, 1, padding=False)
    except QuestionError as error:
        place = example.where or f"question {example.id}"
        raise DataError(f"{place}: {error} Or leave it out of the data.") from error


def _check_gradient(pipeline: RagPipeline, args: RagTrainingArguments) -> None:
    """Check that the scores of passages teach the encoders, where these are to learn.

    Raises:
        ConfigurationError: They come from words, ranks or a reranker alone.
    """
    index = pipeline.retriever.index
    if not isinstance(index, KnowledgeBaseIndex) or (
        args.freeze == "question-encoder" and not args.end_to_end
    ):
        return
    by_vectors = index.settings.kind == "dense" or (
        index.settings.kind == "hybrid"
        and index.settings.fusion == "weighted"
        and index.settings.dense_weight
    )
    if index.reranker is not None or not by_vectors:
        raise ConfigurationError(
            "The scores of passages are not made of vectors (bm25, rrf, a reranker), so that the encoders would "
            "learn nothing: search by 'dense' or weighted 'hybrid', or freeze the question encoder."
        )


def _freeze(model: Any, part: str | None) -> None:
    """Let one part keep its weights, and what no vector is made with: a pooler whose vector is not taken.

    Raises:
        ConfigurationError: Nothing is left to train.
    """
    frozen = {"question-encoder": model.question_encoder, "generator": model.generator}.get(part or "")
    if frozen is not None:
        frozen.requires_grad_(False)
    for encoder in (model.question_encoder, model.rag.ctx_encoder):
        pooler = getattr(encoder, "pooler", None)
        if pooler is not None and model.rag.question_pooling != "pooler":
            # With activation checkpointing, processes do not look for weights without gradient, and would wait.
            pooler.requires_grad_(False)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ConfigurationError("Nothing is left to train: freeze less.")
