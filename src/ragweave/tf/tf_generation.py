"""The base of the TensorFlow models for generation: one call with a loss, training with Keras, decoding steps.

The counterpart of `ragweave.modeling.generation`.

Notation used for tensor shapes
    B questions, K passages per question, R rows (beams, samples, hypotheses) per question and passage, T target
    tokens, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from keras import ops
from numpy.typing import NDArray
from transformers import GenerationConfig

from ragweave.configuration import RagConfig
from ragweave.errors import ConfigurationError
from ragweave.modeling import parts
from ragweave.outputs import pop_cache
from ragweave.tf.beam_search import Beam, Step, search
from ragweave.tf.generation_options import (
    AllowedTokens,
    GenerationOptions,
    Ids,
    Processor,
    Scores,
    logits_processors,
)
from ragweave.tf.keras_backend import Tensor, as_graph, is_traced
from ragweave.tf.layers import Encoded, Tensors, at_least_float32
from ragweave.tf.tf_marginalization import scored_positions, token_log_marginals
from ragweave.tf.tf_outputs import TFRetrievAugLMMarginOutput
from ragweave.tf.tf_pretrained import TFRagPreTrainedModel, takes_dictionary
from ragweave.tf.tf_rag_model import TFRagModel, decoder_rows
from ragweave.tf.transformer_layer import DecoderCache


class TFRagForGeneration(parts.RagWrapper, TFRagPreTrainedModel):
    """A model that wraps `TFRagModel` and marginalises its output. Arguments as for `TFRagModel`."""

    # Whether each step of decoding marginalises over passages, or each passage decodes alone.
    _decodes_mixtures: ClassVar[bool]

    def __init__(
        self,
        config: RagConfig | None = None,
        question_encoder: Any = None,
        generator: Any = None,
        retriever: parts.RetrieverProtocol | None = None,
        *,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        rag = TFRagModel(config, question_encoder, generator, retriever, dtype=dtype, **kwargs)
        super().__init__(rag.config)
        self.rag = rag
        self.supports_jit = retriever is None
        self._step: Any = None

    def set_retriever(self, retriever: parts.RetrieverProtocol) -> None:
        """Set the retriever that the model calls."""
        super().set_retriever(retriever)
        self.supports_jit = False  # XLA cannot call a retriever, so Keras must not choose XLA by itself

    @abstractmethod
    def _nll(self, logits: Tensor, doc_scores: Tensor, targets: parts.Targets, epsilon: float) -> Tensor:
        """-log p(y|x) of B questions, (B,), from logits (B, K, T, V)."""

    @abstractmethod
    def _output_logits(self, logits: Tensor, doc_scores: Tensor, do_marginalize: bool) -> Tensor:
        """The logits that `call` returns, from the generator's (B*K*R, T, V)."""

    @takes_dictionary
    def call(  # `TFRagModel.call` and `RagTokenForGeneration.forward` describe the arguments
        self,
        input_ids: Any = None,
        attention_mask: Tensor = None,
        encoder_outputs: Encoded | Tensors | None = None,
        decoder_input_ids: Tensor = None,
        decoder_attention_mask: Tensor = None,
        past_key_values: DecoderCache | None = None,
        context_input_ids: Tensor = None,
        context_attention_mask: Tensor = None,
        doc_scores: Tensor = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_retrieved: bool | None = None,
        exclude_bos_score: bool | None = None,
        do_marginalize: bool | None = None,
        reduce_loss: bool | None = None,
        labels: Tensor = None,
        n_docs: int | None = None,
        question_strings: Sequence[str] | None = None,
        training: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Score answers, with a loss if there are labels.

        Arguments as for `TFRagModel.call` and for the ``forward`` of the torch class.

        Returns:
            `TFRetrievAugLMMarginOutput`; ``loss`` is -log p(y|x), (B,) or, reduced, a scalar.

        Raises:
            MissingContextError: There are neither contexts nor a retriever and a question.
            ShapeError: Arguments disagree about B or K, or labels are not token ids.
        """
        return_dict = kwargs.pop("return_dict", True)
        past_key_values = pop_cache(past_key_values, kwargs)
        parts.warn_unknown(kwargs)
        targets = None
        if labels is not None:
            labels = ops.convert_to_tensor(labels)
            parts.check_label_rows(labels, doc_scores if doc_scores is not None else input_ids)
            targets = self._targets(
                labels,
                decoder_input_ids,
                parts.resolve_flag(exclude_bos_score, self.config.exclude_bos_score),
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
            logits = group_by_question(output.logits, output.doc_scores)
            loss = self._nll(logits, output.doc_scores, targets, self.config.label_smoothing)
            if parts.resolve_flag(reduce_loss, self.config.reduce_loss):
                loss = ops.sum(loss)
        logits = self._output_logits(
            output.logits, output.doc_scores, parts.resolve_flag(do_marginalize, self.config.do_marginalize)
        )
        result = TFRetrievAugLMMarginOutput(loss=loss, **{**output, "logits": logits})
        return result if return_dict is not False else result.to_tuple()

    def get_nll(
        self,
        seq_logits: Tensor,
        doc_scores: Tensor,
        target: Tensor,
        reduce_loss: bool = False,
        epsilon: float = 0.0,
        exclude_bos_score: bool = False,
        n_docs: int | None = None,
    ) -> Tensor:
        """-log p(y|x) of labels, (B,) or a scalar. Arguments as for `RagForGeneration.get_nll`."""
        seq_logits, doc_scores, target = map(ops.convert_to_tensor, (seq_logits, doc_scores, target))
        parts.check_n_docs(n_docs, doc_scores, None)
        targets = self._targets(target, target, exclude_bos_score)
        loss = self._nll(group_by_question(seq_logits, doc_scores), doc_scores, targets, epsilon)
        return ops.sum(loss) if reduce_loss else loss

    def shift_tokens_right(self, input_ids: Tensor, start_token_id: int | None = None) -> Tensor:
        """Decoder input for labels, (B, T). Arguments as for `RagForGeneration.shift_tokens_right`."""
        special = self.rag.special_tokens
        input_ids = ops.convert_to_tensor(input_ids)
        start = ops.full_like(
            input_ids[:, :1], special.decoder_start if start_token_id is None else start_token_id
        )
        shifted = ops.concatenate([start, input_ids[:, :-1]], axis=1)
        return ops.where(shifted < 0, special.pad_or_eos, shifted)

    def _targets(self, labels: Tensor, decoder_input_ids: Tensor, exclude_bos_score: bool) -> parts.Targets:
        """Decoder input, targets and which of them count; `ragweave.modeling.parts` explains the two conventions.

        Written without branches on values, which are not known while a graph is being built.
        """
        parts.check_label_shapes(labels, decoder_input_ids)
        if not is_traced(labels):
            parts.check_labels(np.asarray(ops.convert_to_numpy(labels)), self.generator.config.vocab_size)
        special = self.rag.special_tokens
        readable = ops.where(labels < 0, special.pad_or_eos, labels)
        if decoder_input_ids is None:
            decoder_input_ids = readable
        decoder_input_ids = ops.cast(decoder_input_ids, labels.dtype)
        labels_alone = ops.all(ops.equal(decoder_input_ids, readable))
        one_column = ops.equal(ops.shape(labels)[1], 1)
        following = ops.concatenate([labels[:, 1:], ops.full_like(labels[:, :1], parts.IGNORE_INDEX)], axis=1)
        target_ids = ops.where(ops.logical_and(labels_alone, ops.logical_not(one_column)), following, labels)
        decoder_input_ids = ops.where(
            ops.logical_and(labels_alone, one_column), self.shift_tokens_right(labels), decoder_input_ids
        )
        scored = scored_positions(target_ids, special.pad, special.eos)
        if exclude_bos_score and special.bos is not None:
            all_bos = ops.all(ops.equal(target_ids[:, 0], special.bos))
            first = ops.equal(ops.arange(ops.shape(labels)[1]), 0)[None]
            scored = ops.logical_and(scored, ops.logical_not(ops.logical_and(first, all_bos)))
        return parts.Targets(decoder_input_ids, target_ids, scored)

    def _generation_config(
        self, config: GenerationConfig | None, *defaults: GenerationConfig, **arguments: Any
    ) -> GenerationConfig:
        """The arguments of a call, then what `RagWrapper._merged_generation_config` merges."""
        merged = self._merged_generation_config(config, *defaults)
        arguments = {name: value for name, value in arguments.items() if value is not None}
        unknown = merged.update(**arguments)
        unknown.pop("token_type_ids", None)  # BERT's tokenizers return them; a question is one segment
        if unknown:
            raise TypeError(f"generate() got unknown argument(s): {', '.join(unknown)}.")
        return merged

    def _decode(
        self,
        contexts: Encoded,
        doc_scores: Tensor,
        options: GenerationOptions,
        *,
        allowed: AllowedTokens | None,
        processors: Sequence[Processor],
        seed: int | None,
    ) -> list[list[Beam]]:
        """Decode the answers of B mixtures of K passages: B*K contexts with scaled scores, (B, K)."""
        if self._step is None:  # built once, since TensorFlow takes seconds to make a graph
            self._step = _step_graph(self.generator, marginalize=self._decodes_mixtures)
        rows = options.rows
        cross = self.generator.cross_keys_values(contexts.last_hidden_state)
        cache = self.generator.empty_cache(cross, rows, options.max_length - 1)
        return search(
            _stepper(self._step, cache, contexts.attention_mask, doc_scores, rows),
            doc_scores.shape[0],
            options,
            [*logits_processors(options, allowed, rows), *processors],
            np.random.default_rng(seed),
        )

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """The loss of ``fit`` and ``evaluate``: the mean of -log p(y|x) over questions, which may have weights.

        ``x`` are the arguments of `call`, ``labels`` among them, ``y`` is None, and ``y_pred`` is what `call`
        returned. Raises `ConfigurationError` if there were no labels in ``x``.
        """
        loss = getattr(y_pred, "loss", None)
        if loss is None or y is not None:
            raise ConfigurationError(
                "Give fit() and evaluate() a dictionary of arguments with labels in it, and nothing else."
            )
        if sample_weight is not None:
            loss = loss * ops.cast(sample_weight, loss.dtype)
        loss = ops.mean(loss)
        for penalty in self.losses:
            loss = loss + ops.sum(penalty)
        return loss


def group_by_question(logits: Tensor, doc_scores: Tensor) -> Tensor:
    """(B*K*R, T, V) to (B, K, R*T, V): rows are more positions."""
    n_questions, n_docs = ops.shape(doc_scores)
    return ops.reshape(logits, (n_questions, n_docs, -1, ops.shape(logits)[-1]))


def _step_graph(generator: Any, *, marginalize: bool) -> Callable[..., tuple[Tensor, DecoderCache]]:
    """One token of all rows under all passages, as a graph: log-probabilities of mixtures, or logits of K = 1."""

    def step(
        cache: DecoderCache, mask: Tensor, tokens: Tensor, doc_scores: Tensor, parents: Tensor = None
    ) -> tuple[Tensor, DecoderCache]:
        if parents is not None:
            cache = cache.reordered(parents)
        rows = decoder_rows(ops.reshape(tokens, (-1, 1)), doc_scores, "tokens")  # (B*K*R, 1)
        decoded = generator.decode(cache.cross, mask, rows, past=cache, use_cache=True)
        scores = group_by_question(at_least_float32(decoded.logits), doc_scores)  # (B, K, R, V)
        if marginalize:
            scores = token_log_marginals(scores, doc_scores)
        return ops.reshape(scores, (-1, ops.shape(scores)[-1])), decoded.cache

    return as_graph(step)


def _stepper(
    step: Callable[..., tuple[Tensor, DecoderCache]],
    cache: DecoderCache,
    mask: Tensor,
    doc_scores: Tensor,
    rows: int,
) -> Step:
    """The step function of a search, which keeps the cache between its calls. ``rows`` is R."""
    n_questions, n_docs = doc_scores.shape
    contexts = np.arange(n_questions * n_docs, dtype=np.int32).reshape(n_questions, n_docs, 1)

    def next_scores(tokens: Ids, parents: NDArray[np.int32] | None) -> Scores:
        nonlocal cache
        arguments = [cache, mask, ops.convert_to_tensor(tokens.astype("int32")), doc_scores]
        if parents is not None:
            # Rows of the search, (B*R,), to rows of the cache, (B*K*R,).
            beams = parents.reshape(n_questions, 1, rows) % rows
            arguments.append(ops.convert_to_tensor((contexts * rows + beams).reshape(-1)))
        scores, cache = step(*arguments)
        return np.asarray(ops.convert_to_numpy(scores), dtype=np.float32)

    return next_scores
