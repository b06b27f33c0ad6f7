"""RagTrainer: transformers' Trainer on the marginal likelihood of RAG models.

Notation used for tensor shapes: B questions, K passages per question, T answer tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import BatchEncoding, TrainerControl
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from ragweave.errors import ConfigurationError, DataError, QuestionError
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
from ragweave.pipeline.rag_pipeline import RagPipeline
from ragweave.provenance.answers import Answer
from ragweave.tokenization import RagTokenizer
from ragweave.training.arguments import RagTrainingArguments
from ragweave.training.attention_recording import AttentionRecord, record_attention
from ragweave.training.collator import RagCollator, RetrievedExample, cache_retrieval
from ragweave.training.index_refresh import DOCUMENT_ENCODER_FOLDER, IndexRefresh, train_document_encoder
from ragweave.training.losses import LOSSES, LossInputs
from ragweave.training.resumable_trainer import ResumableTrainer, gather
from ragweave.training.training_metrics import mean_metrics, question_metrics
from ragweave.types import Example, Formulation


class RagTrainer(ResumableTrainer):
    """Trains question encoder and generator together; end to end, also the document encoder and its index.

    The loss is the mean over questions of -log p(y|x), with the passages marginalised out (Lewis et al. 2020, section
    2.4). Gradients reach the generator through p(y|x,z) and the question encoder through p(z|x).

    Args:
        pipeline: The model, its retriever and the question encoder, which are trained in place.
        args: Arguments of the run.
        train_dataset: Questions with answers to train on.
        eval_dataset: Questions with answers to evaluate on.
        **kwargs: Passed to transformers' Trainer.

    Attributes:
        pipeline: The pipeline; after end-to-end training it searches the knowledge base of the run.
        document_encoder: The document encoder of end-to-end training, or ``None``.
        refresh: The index refreshes of end-to-end training, or ``None``.
        answering: Numbers of answered and total questions of a running evaluation, for ``on_prediction_step``.

    Raises:
        ConfigurationError: Nothing is left to train, arguments contradict each other, or the pipeline concatenates.
        DataError: A question is empty or too long, or its answer is missing or too long.
        TrainingError: The knowledge base of end-to-end training is not in a folder.
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
        if pipeline.formulation == "concat" or pipeline.formulation == "pced":
            raise ConfigurationError(
                f"Training sums over passages, and {pipeline.formulation!r} does not. Choose the formulation 'token' "
                "or 'sequence'."
            )
        self.formulation: Formulation = pipeline.formulation
        model = pipeline.model
        model.set_retriever(pipeline.retriever)
        if args.n_docs is not None:
            model.config.n_docs = args.n_docs
        if isinstance(pipeline.retriever.index, KnowledgeBaseIndex):
            # The saved model searches as it was trained to, except for what RagConfig has no field for (rrf, k1, b).
            settings: Any = pipeline.retriever.index.settings  # an index sets all of them
            model.config.retrieval, model.config.dense_weight = settings.kind, settings.dense_weight
        collator = RagCollator(
            pipeline.retriever,
            causal=model.config.generator_is_causal,
            max_question_length=pipeline.encoder.max_length,
            max_answer_length=args.max_answer_length,
        )
        # Wrong data fails before training, not when its batch comes.
        for example in (*(train_dataset or ()), *(eval_dataset or ())):
            collator.answer_ids(example)
            _check_question(pipeline, example)
        self.document_encoder = None
        if args.end_to_end:
            self.document_encoder = train_document_encoder(pipeline, args.document_encoder)
        _freeze(model, args.freeze)
        _check_scores_are_trainable(pipeline, args)
        self._examples = train_dataset or ()
        dataset: Sequence[Example | RetrievedExample] | None = train_dataset
        if train_dataset is not None and args.retrieve_ahead:
            with tqdm(total=len(train_dataset), desc="Retrieving", disable=args.disable_tqdm) as bar:
                dataset = cache_retrieval(pipeline, train_dataset, model.config.n_docs, bar.update)
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=dataset,
            eval_dataset=eval_dataset,
            **kwargs,
        )
        # The loss is a mean over questions, not over tokens: Trainer divides it by its gradient accumulation steps.
        self.model_accepts_loss_kwargs = False
        self.pipeline = pipeline
        self.answering = (0, 0)
        self.refresh: IndexRefresh | None = None
        if self.document_encoder is not None:
            self.refresh = IndexRefresh(pipeline.retriever, self.document_encoder, args)
            self.add_callback(self.refresh)

    def training_texts(self) -> Iterable[Sequence[str]]:
        """The questions with their answers."""
        return ([example.question, *example.answers] for example in self._examples)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train as `ResumableTrainer` does, refresh the index, and leave the model ready to answer.

        Warns:
            UserWarning: The last refresh of the index failed. The message contains the command that repeats it.
        """
        try:
            result = super().train(resume_from_checkpoint, **kwargs)
            if self.refresh is not None:
                best = self.state.best_global_step if self.args.load_best_model_at_end else None
                self.refresh.finish(best or self.state.global_step)
            return result
        finally:
            if self.refresh is not None:
                self.refresh.stop()
            self.model.eval()

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Create the optimiser, with ``retriever_learning_rate`` for the encoders."""
        from_caller = self.optimizer is not None
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        rate = self.args.retriever_learning_rate
        if not from_caller and rate is not None:
            generator = set(self.pipeline.model.generator.parameters())
            optimizer.param_groups = [
                {**group, "params": weights, "lr": learning_rate}
                for group in optimizer.param_groups
                for learning_rate, in_generator in ((group["lr"], True), (rate, False))
                if (weights := [w for w in group["params"] if (w in generator) is in_generator])
            ]
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The mean over questions of -log p(y|x), plus the retriever loss if there is one."""
        name = self.args.retriever_loss if model.training else None
        unwrapped: Any = self.accelerator.unwrap_model(model)
        records = name == "adist"
        with record_attention(unwrapped.generator) if records else nullcontext() as record:
            output = model(**inputs, reduce_loss=False, output_retrieved=records)
        # A plain tensor: the model returns one whose backward sums over questions.
        loss = output.loss.as_subclass(Tensor).mean()
        if name is not None:
            retriever_loss = LOSSES[name](self._loss_inputs(unwrapped, inputs, output, record))
            loss = loss + self.args.retriever_loss_weight * retriever_loss
        return (loss, output) if return_outputs else loss

    def _loss_inputs(
        self, model: Any, inputs: dict[str, Any], output: Any, record: AttentionRecord | None
    ) -> LossInputs:
        k = output.doc_scores.shape[1]
        attention = None
        if record is not None:
            mask = inputs.get("context_attention_mask", output.context_attention_mask)
            attention = record.by_passage(k, mask)
        # (B, K, T) and (B, T)
        log_probs, scored = model.per_passage_log_probs(inputs["labels"], output.logits, k)
        return LossInputs(output.doc_scores, log_probs, scored, self.formulation, attention)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Answer the questions, each process its share, and compute metrics of the answers and of retrieval.

        Returns:
            ``loss``, the mean of -log p(y|x) of the gold answers, and the metrics of `mean_metrics`, which also warns
            of a collapsed retriever. Their names start with the prefix.
        """
        dataset: list[Example] = list(self.eval_dataset if eval_dataset is None else eval_dataset)
        share = dataset[: self.args.eval_questions][self.args.process_index :: self.args.world_size]
        start = time.perf_counter()
        was_training = self.model.training
        self.model.eval()
        try:
            losses = gather(self._losses(share))
            answers = self._answers(share)
            rows = gather([question_metrics(*pair) for pair in zip(share, answers, strict=True)])
        finally:
            self.model.train(was_training)
        metrics = {
            "loss": sum(losses) / max(len(losses), 1),
            **mean_metrics(rows, len(self.pipeline.knowledge_base)),
            "runtime": time.perf_counter() - start,
        }
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _answers(self, examples: Sequence[Example]) -> list[Answer]:
        self.answering = (0, len(examples))
        hidden = self.args.disable_tqdm or not self.is_local_process_zero()
        with tqdm(total=len(examples), desc="Answering", disable=hidden) as bar:

            def advance(count: int) -> None:
                bar.update(count)
                self.answering = (self.answering[0] + count, len(examples))
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)

            return self.pipeline(
                [example.question for example in examples],
                max_new_tokens=self.args.eval_max_new_tokens,
                batch_size=self.args.per_device_eval_batch_size,
                min_confidence=0.0,
                progress=advance,
            )

    @torch.no_grad()
    def _losses(self, examples: Sequence[Example]) -> list[float]:
        """-log p(y|x) of each question's gold answer."""
        losses: list[float] = []
        size = self.args.per_device_eval_batch_size
        for start in range(0, len(examples), size):
            batch = BatchEncoding(self.data_collator(examples[start : start + size])).to(self.args.device)
            with self.compute_loss_context_manager():
                losses += self.model(**batch, reduce_loss=False).loss.tolist()
        return losses

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log metrics and, end to end, the staleness of the index and the number of failed refreshes."""
        if self.refresh is not None:
            logs["index_staleness"] = self.refresh.staleness(self.state.global_step)
            logs["index_refreshes_failed"] = self.refresh.failures
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model and its tokenizers, for `RagPipeline.from_pretrained`, and a trained document encoder."""
        index, config = self.pipeline.retriever.index, self.pipeline.model.config
        document_encoder = None if _internal_call else self.document_encoder
        if document_encoder is not None:
            vars(document_encoder).pop("fingerprint", None)  # cached before training
            config.passage_encoder_fingerprint = document_encoder.fingerprint
        elif isinstance(index, KnowledgeBaseIndex):  # for a checkpoint, the encoder of the last refresh
            config.passage_encoder_fingerprint = index.base.manifest.encoder.fingerprint
        super().save_model(output_dir, _internal_call)
        if not self.args.should_save:
            return
        folder, retriever = Path(output_dir or str(self.args.output_dir)), self.pipeline.retriever
        tokenizers = (retriever.question_encoder_tokenizer, retriever.generator_tokenizer)
        RagTokenizer(*tokenizers).save_pretrained(folder)
        if not _internal_call:  # the record of the run, for the card of the model
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        if document_encoder is not None:
            document_encoder.save_pretrained(folder / DOCUMENT_ENCODER_FOLDER)


def _check_question(pipeline: RagPipeline, example: Example) -> None:
    """Check that a question is not empty, and fits into the encoder and into a context."""
    try:
        pipeline.encoder.question_length(example.question)
        no_passage = [{"title": [""], "text": [""]}]
        pipeline.retriever.postprocess_docs(no_passage, [example.question.strip()], None, 1, padding=False)
    except QuestionError as error:
        location = example.where or f"question {example.id}"
        raise DataError(f"{location}: {error} Or leave it out of the data.") from error


def _check_scores_are_trainable(pipeline: RagPipeline, args: RagTrainingArguments) -> None:
    """Check that gradients reach the encoders through the passage scores, if an encoder is trained."""
    index = pipeline.retriever.index
    if args.retriever_is_frozen or not isinstance(index, KnowledgeBaseIndex):
        return
    settings = index.settings
    weighted = settings.kind == "hybrid" and settings.fusion == "weighted" and settings.dense_weight
    if index.reranker is not None or not (settings.kind == "dense" or weighted):
        raise ConfigurationError(
            "The passage scores do not depend on vectors (bm25, rrf, a reranker), so the encoders would learn "
            "nothing: search by 'dense' or weighted 'hybrid', or freeze the question encoder."
        )


def _freeze(model: Any, part: str | None) -> None:
    """Freeze one part, and poolers whose output is not used."""
    frozen = {"question-encoder": model.question_encoder, "generator": model.generator}.get(part or "")
    if frozen is not None:
        frozen.requires_grad_(False)
    for encoder in (model.question_encoder, model.rag.ctx_encoder):
        pooler = getattr(encoder, "pooler", None)
        if pooler is not None and model.rag.question_pooling != "pooler":
            # With activation checkpointing, DDP does not look for unused weights and would wait for their gradients.
            pooler.requires_grad_(False)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ConfigurationError("Nothing is left to train: freeze less.")
