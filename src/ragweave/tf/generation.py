"""What both TensorFlow models for generation share: one call with a loss, and training with Keras.

It is to be read beside `ragweave.modeling.generation`.

Notation used for tensor shapes
    B questions, K passages per question, R rows per question and passage, T target tokens, V vocabulary.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from keras import ops
from transformers import GenerationConfig

from ragweave.configuration import RagConfig
from ragweave.errors import ConfigurationError
from ragweave.modeling.arguments import chosen, refuse_unknown
from ragweave.modeling.parts import Retriever
from ragweave.tf.base import TFRagPreTrainedModel, takes_dictionary
from ragweave.tf.contexts import EncodedContexts
from ragweave.tf.labels import check_label_rows, check_labels, make_targets, shift_tokens_right
from ragweave.tf.marginalization import Targets
from ragweave.tf.networks import DecoderCache
from ragweave.tf.options import Allowed, Processor, SearchOptions
from ragweave.tf.outputs import TFRetrievAugLMMarginOutput
from ragweave.tf.processors import processors
from ragweave.tf.rag import TFRagModel
from ragweave.tf.search import Answer, search
from ragweave.tf.stepping import MixtureStep, graphs

Tensor = Any


class TFRagForGeneration(TFRagPreTrainedModel):
    """A model that wraps `TFRagModel` and marginalises what it returns. Arguments as for `TFRagModel`."""

    # Whether a search runs over mixtures of passages, or under each passage alone.
    _searches_mixtures: ClassVar[bool]

    def __init__(
        self,
        config: RagConfig | None = None,
        question_encoder: Any = None,
        generator: Any = None,
        retriever: Retriever | None = None,
        *,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        rag = TFRagModel(config, question_encoder, generator, retriever, dtype=dtype, **kwargs)
        super().__init__(rag.config)
        self.rag = rag
        self.supports_jit = retriever is None
        self._steps: Any = None
        self.built = True

    @property
    def retriever(self) -> Retriever | None:
        """The retriever that the model calls."""
        return self.rag.retriever

    @property
    def question_encoder(self) -> Any:
        """The question encoder."""
        return self.rag.question_encoder

    @property
    def generator(self) -> Any:
        """The generator."""
        return self.rag.generator

    def set_retriever(self, retriever: Retriever) -> None:
        """Let the model call another retriever."""
        self.rag.set_retriever(retriever)
        self.supports_jit = False  # XLA cannot call it: Keras is not to choose XLA by itself

    @abstractmethod
    def _nll(self, logits: Tensor, doc_scores: Tensor, targets: Targets, epsilon: float) -> Tensor:
        """-log p(y|x) of B questions, (B,), from logits (B, K, T, V)."""

    @abstractmethod
    def _shown_logits(self, logits: Tensor, doc_scores: Tensor, do_marginalize: bool) -> Tensor:
        """The logits that `call` returns, from the generator's (B*K*R, T, V)."""

    @takes_dictionary
    def call(  # noqa: D417  # the others are described where they belong
        self,
        input_ids: Any = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: EncodedContexts | tuple[Tensor, ...] | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: DecoderCache | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        doc_scores: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_retrieved: bool | None = None,
        exclude_bos_score: bool | None = None,
        do_marginalize: bool | None = None,
        reduce_loss: bool | None = None,
        labels: Tensor | None = None,
        n_docs: int | None = None,
        question_strings: Sequence[str] | None = None,
        training: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Score answers, with a loss where labels are given.

        Arguments as for `TFRagModel.call`, and:

        Args:
            **kwargs: ``return_dict``; anything unknown is refused.
            exclude_bos_score: Leave out the first target where it is the BOS token in every row.
            do_marginalize: Return log-probabilities of the mixture, (B, T, V), as logits (RAG-Token only).
            reduce_loss: Sum the loss over the batch. Without it, there is one for each question.
            labels: Answer tokens, (B, T); see `ragweave.modeling.labels` for what they are aligned with.

        Returns:
            `TFRetrievAugLMMarginOutput`; ``loss`` is -log p(y|x), (B,) or, reduced, a scalar.

        Raises:
            MissingContextError: Neither contexts nor a retriever and a question are there.
            ShapeError: Arguments disagree about B or K, or labels are no token ids.
        """
        return_dict = kwargs.pop("return_dict", True)
        refuse_unknown(kwargs)
        targets = None
        if labels is not None:
            labels = ops.convert_to_tensor(labels)
            check_label_rows(labels, doc_scores if doc_scores is not None else input_ids)
            targets = self._targets(
                labels, decoder_input_ids, chosen(exclude_bos_score, self.config.exclude_bos_score)
            )
            decoder_input_ids, use_cache = targets.decoder_input_ids, False
        output = self.rag(
            input_ids,
            attention_mask=attention_mask,
            encoder_outputs=encoder_outputs,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            past_key_values=past_key_values,
            doc_scores=doc_scores,
            context_input_ids=context_input_ids,
            context_attention_mask=context_attention_mask,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            output_retrieved=output_retrieved,
            n_docs=n_docs,
            question_strings=question_strings,
            training=training,
        )
        loss = None
        if targets is not None:
            grouped = _group_by_question(output.logits, output.doc_scores)
            loss = self._nll(grouped, output.doc_scores, targets, self.config.label_smoothing)
            if chosen(reduce_loss, self.config.reduce_loss):
                loss = ops.sum(loss)
        logits = self._shown_logits(
            output.logits, output.doc_scores, chosen(do_marginalize, self.config.do_marginalize)
        )
        result = TFRetrievAugLMMarginOutput(loss=loss, **{**output, "logits": logits})
        return result if return_dict is not False else result.to_tuple()

    def shift_tokens_right(self, input_ids: Tensor, start_token_id: int | None = None) -> Tensor:
        """Decoder input for labels: the start token, then every label but the last.

        Args:
            input_ids: Labels, (B, T); -100 becomes the padding token.
            start_token_id: First decoder token; the model's own where left out.

        Returns:
            Decoder input, (B, T).
        """
        special = self.rag.special_tokens
        start = special.decoder_start if start_token_id is None else start_token_id
        return shift_tokens_right(ops.convert_to_tensor(input_ids), start, special.filler)

    def _targets(self, labels: Tensor, decoder_input_ids: Tensor | None, exclude_bos_score: bool) -> Targets:
        check_labels(labels, self.generator.config.vocab_size)
        special = self.rag.special_tokens
        targets = make_targets(labels, decoder_input_ids, special)
        if not exclude_bos_score or special.bos is None:
            return targets
        begins = ops.all(ops.equal(targets.target_ids[:, 0], special.bos))
        first = ops.equal(ops.arange(ops.shape(labels)[1]), 0)[None]
        scored = ops.logical_and(targets.scored, ops.logical_not(ops.logical_and(first, begins)))
        return Targets(targets.decoder_input_ids, targets.target_ids, scored)

    def _merged_generation_config(
        self, given: GenerationConfig | None, *others: GenerationConfig, **own: Any
    ) -> GenerationConfig:
        """What a call says, then the caller's GenerationConfig, this model's, the networks', then others'; a new one.

        Raises:
            TypeError: A call says what no GenerationConfig knows.
        """
        config, special = copy.deepcopy(self.generation_config), self.rag.special_tokens
        tokens = {
            "decoder_start_token_id": special.decoder_start,
            "bos_token_id": special.bos,
            "eos_token_id": self.config.eos_token_id or getattr(self.config.generator, "eos_token_id", None),
            "pad_token_id": special.filler,
        }
        config.update(**tokens, defaults_only=True)
        for other in others:
            config.update(**other.to_dict(), defaults_only=True)
        if given is not None:
            config.update(**{name: value for name, value in given.to_dict().items() if value is not None})
        refuse_unknown(config.update(**{name: value for name, value in own.items() if value is not None}))
        return config

    def _searched(
        self,
        contexts: EncodedContexts,
        doc_scores: Tensor,
        options: SearchOptions,
        *,
        allowed: Allowed | None = None,
        logits_processor: Sequence[Processor] = (),
        seed: int | None = None,
    ) -> list[list[Answer]]:
        """Search under B mixtures of K passages.

        Args:
            contexts: B*K contexts that were read.
            doc_scores: Scaled passage scores, (B, K).
            options: How to search.
            allowed: Says which tokens may follow.
            logits_processor: The caller's processors.
            seed: Where a search that draws begins.
        """
        if self._steps is None:
            self._steps = graphs(self.generator, mixes=self._searches_mixtures)
        rows = options.num_return_sequences if options.do_sample else options.num_beams
        step = MixtureStep(
            self.generator, self._steps, contexts, doc_scores, rows=rows, max_length=options.max_length
        )
        changes = processors(options, allowed, rows, logits_processor)
        return search(step, doc_scores.shape[0], options, changes, np.random.default_rng(seed))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """The loss that ``fit`` and ``evaluate`` take: the mean of -log p(y|x) over questions.

        Args:
            x: Arguments of `call`, ``labels`` among them.
            y: Nothing.
            y_pred: What `call` returned.
            sample_weight: Weights of questions, (B,).
            training: Whether this is training.

        Raises:
            ConfigurationError: There were no labels in ``x``.
        """
        loss = getattr(y_pred, "loss", None)
        if loss is None or y is not None:
            raise ConfigurationError(
                "Give fit() and evaluate() a dictionary of arguments with labels in it, and nothing beside it."
            )
        if sample_weight is not None:
            loss = loss * ops.cast(sample_weight, loss.dtype)
        loss = ops.mean(loss)
        for penalty in self.losses:
            loss = loss + ops.sum(penalty)
        return loss


def _group_by_question(logits: Tensor, doc_scores: Tensor) -> Tensor:
    """(B*K, T, V) to (B, K, T, V)."""
    n_questions, n_docs = ops.shape(doc_scores)
    return ops.reshape(logits, (n_questions, n_docs, *ops.shape(logits)[1:]))
