"""RagForGeneration, the base of both models for generation: a forward pass with a loss, and stepwise decoding.

Notation used for tensor shapes
    B questions, K passages per question, R rows per question and passage, T target tokens, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import Cache, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.generation import GenerationMode

from ragweave.configuration import RagConfig
from ragweave.marginalization import group_by_question, scored_positions, target_log_probs
from ragweave.modeling.attention import MixtureCache
from ragweave.modeling.contexts import EncodedContexts, Mixture, RecordedMixture, TokenScores
from ragweave.modeling.parts import (
    IGNORE_INDEX,
    RagWrapper,
    RetrieverProtocol,
    Targets,
    as_list,
    check_label_rows,
    check_label_shapes,
    check_labels,
    resolve_config,
    resolve_flag,
    warn_unknown,
)
from ragweave.modeling.pretrained import RagPreTrainedModel
from ragweave.modeling.rag import RagModel
from ragweave.outputs import CACHE, RetrievAugLMMarginOutput, pop_cache


class QuestionLosses(Tensor):
    """Losses of B questions, (B,), whose `backward` computes the gradient of their sum.

    For a plain vector torch raises an error, and training scripts that omit ``reduce_loss=True`` would fail.
    """

    # As for parameters, results of operations (such as the mean) are plain tensors.
    __torch_function__: Any = torch.nn.Parameter.__torch_function__

    def backward(self, gradient: Tensor | None = None, *args: Any, **kwargs: Any) -> None:
        """Backward from the sum, or with weights of the caller, (B,); arguments as in torch."""
        weights = torch.ones_like(self) if gradient is None else gradient
        self.as_subclass(Tensor).backward(weights, *args, **kwargs)


class RagForGeneration(RagWrapper, RagPreTrainedModel, GenerationMixin):
    """Wraps `RagModel` and marginalises its output; the base of RAG-Token and RAG-Sequence.

    Arguments as for `RagModel`.
    """

    def __init__(
        self,
        config: RagConfig | None = None,
        question_encoder: PreTrainedModel | None = None,
        generator: PreTrainedModel | None = None,
        retriever: RetrieverProtocol | None = None,
        **kwargs: Any,
    ) -> None:
        config = resolve_config(config, question_encoder, generator, **kwargs)
        super().__init__(config)
        self.rag = RagModel(config, question_encoder, generator, retriever)
        self.post_init()

    @abstractmethod
    def _nll(self, logits: Tensor, doc_scores: Tensor, targets: Targets, epsilon: float) -> Tensor:
        """-log p(y|x) of B questions, (B,), from logits (B, K, T, V)."""

    @abstractmethod
    def _output_logits(
        self,
        logits: Tensor,
        doc_scores: Tensor,
        do_marginalize: bool,
        contexts: EncodedContexts | None = None,
    ) -> Tensor:
        """The logits that `forward` returns, from the generator's (B*K*R, T, V)."""

    def forward(  # noqa: D417  # RagModel.forward documents the other arguments
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: EncodedContexts
        | RecordedMixture
        | tuple[Tensor, ...]
        | dict[str, Tensor]
        | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
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
        **kwargs: Any,
    ) -> RetrievAugLMMarginOutput:
        """Score answers, with a loss if there are labels.

        Arguments as for `RagModel.forward`, and:

        Args:
            **kwargs: ``return_dict``; ``num_items_in_batch``, the number of target tokens, which divides the summed
                loss (transformers' Trainer passes it); others are ignored with a warning.
            exclude_bos_score: Leave out the first target if it is the BOS token in every row.
            do_marginalize: Return log-probabilities of the mixture, (B, T, V), as logits (RAG-Token only).
            reduce_loss: Sum the loss over the batch. By default there is one for each question, and ``backward``
                computes the gradient of their sum.
            labels: Answer tokens, (B, T); `ragweave.modeling.parts` documents their two conventions.

        Returns:
            `RetrievAugLMMarginOutput`; ``loss`` is -log p(y|x), (B,) or, reduced, a scalar.

        Raises:
            MissingContextError: There are neither contexts nor a retriever and a question.
            ShapeError: Arguments disagree about B or K, or labels are not token ids.
        """
        return_dict = kwargs.pop("return_dict", True)
        past_key_values = pop_cache(past_key_values, kwargs)
        if isinstance(encoder_outputs, RecordedMixture):
            return self._step(encoder_outputs, decoder_input_ids, past_key_values)
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        warn_unknown(kwargs)
        targets = None
        if labels is not None:
            check_label_rows(labels, doc_scores if doc_scores is not None else input_ids)
            targets = self._targets(
                labels, decoder_input_ids, resolve_flag(exclude_bos_score, self.config.exclude_bos_score)
            )
            decoder_input_ids, use_cache = targets.decoder_input_ids, False
        output = self.rag(
            input_ids=input_ids,
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
            # A subclass of RagModel with transformers' signature does not have this argument.
            **({} if question_strings is None else {"question_strings": question_strings}),
        )
        loss = None
        if targets is not None:
            reduce_loss = resolve_flag(reduce_loss, self.config.reduce_loss)
            if self._overrides("get_nll"):
                loss = self.get_nll(
                    output.logits,
                    output.doc_scores,
                    targets.decoder_input_ids,
                    reduce_loss=reduce_loss,
                    epsilon=self.config.label_smoothing,
                    n_docs=output.doc_scores.shape[1],
                )
            else:
                loss = self._loss(output.logits, output.doc_scores, targets)
            if loss.dim() and reduce_loss:
                loss = loss.sum()
            elif loss.dim() and num_items_in_batch is not None:  # transformers' Trainer needs a scalar
                loss = loss.sum() / num_items_in_batch
            elif loss.dim():
                loss = loss.as_subclass(QuestionLosses)
        logits = self._output_logits(
            output.logits,
            output.doc_scores,
            resolve_flag(do_marginalize, self.config.do_marginalize),
            encoder_outputs if isinstance(encoder_outputs, EncodedContexts) else None,
        )
        result = RetrievAugLMMarginOutput(loss=loss, **{**output, "logits": logits})
        return result if return_dict is not False else result.to_tuple()

    def _step(
        self, mixture: RecordedMixture, token_ids: Any, past_key_values: Cache | None
    ) -> RetrievAugLMMarginOutput:
        """Logits of the next token of B answers, (B, T), in a search without beams, which `TokenScores` records."""
        logits = mixture.token_scores.known_logits(token_ids)
        if logits is None:
            self._read(mixture, token_ids, past_key_values)
            logits = mixture.token_scores.known_logits(token_ids)
        doc_scores = mixture.token_scores.doc_scores
        marginals = self._output_logits(cast(Tensor, logits), doc_scores, True, mixture.contexts)
        return RetrievAugLMMarginOutput(logits=marginals, **{CACHE: past_key_values})

    def _read(
        self,
        mixture: RecordedMixture,
        token_ids: Tensor,
        past_key_values: Cache | None,
        *,
        last: bool = False,
    ) -> None:
        """Pass the unread tokens of B answers, (B, T), through the model and record their scores."""
        scores = mixture.token_scores
        if not last and isinstance(past_key_values, MixtureCache) and past_key_values.is_selectable:
            going_on = scores.leave_out_ended(token_ids, mixture)
            if going_on is not None:
                past_key_values.select(going_on)
        reading = scores.mixture or mixture
        unread, mask = scores.unread(token_ids, reading.doc_scores.shape[1], self.generator.dtype, last=last)
        if unread.shape[1]:
            output = self.rag(
                encoder_outputs=reading.contexts,
                decoder_input_ids=unread,
                decoder_attention_mask=None if mask.all() else mask,
                past_key_values=past_key_values,
                doc_scores=reading.doc_scores,
                use_cache=True,
            )
            scores.record(output.logits, output.doc_scores)

    def _targets(self, labels: Tensor, decoder_input_ids: Tensor | None, exclude_bos_score: bool) -> Targets:
        """Decoder input, targets, and which of them count. Decoder input that equals the labels counts as none."""
        check_label_shapes(labels, decoder_input_ids)
        check_labels(labels, self._vocabulary_size())
        special = self.rag.special_tokens
        padded = labels.masked_fill(labels < 0, special.pad_or_eos)
        if decoder_input_ids is not None and not torch.equal(decoder_input_ids, padded):
            target_ids = labels
        elif self.config.generator_is_causal or labels.shape[1] == 1:
            decoder_input_ids, target_ids = self.shift_tokens_right(labels), labels
        else:
            decoder_input_ids = padded
            target_ids = torch.cat([labels[:, 1:], labels.new_full((len(labels), 1), IGNORE_INDEX)], dim=1)
        scored = scored_positions(target_ids, special.pad, special.eos)
        if exclude_bos_score and special.bos is not None and bool((target_ids[:, 0] == special.bos).all()):
            scored[:, 0] = False
        return Targets(decoder_input_ids, target_ids, scored)

    def _loss(self, logits: Tensor, doc_scores: Tensor, targets: Targets) -> Tensor:
        grouped = group_by_question(logits, doc_scores.shape[1])  # (B, K, T, V)
        return self._nll(grouped, doc_scores, targets, self.config.label_smoothing)

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
        """-log p(y|x) of labels in transformers' convention: position t predicts ``target`` t+1.

        Args:
            seq_logits: Generator logits, (B*K, T, V).
            doc_scores: Scaled passage scores, (B, K).
            target: Labels, (B, T); the first is not scored.
            reduce_loss: Sum over the batch.
            epsilon: Label smoothing.
            exclude_bos_score: Leave out the first target if it is the BOS token in every row.
            n_docs: K; by default that of ``doc_scores``.

        Returns:
            The loss, (B,) or a scalar.
        """
        targets = self._targets(target, target, exclude_bos_score)
        logits = group_by_question(seq_logits, n_docs or doc_scores.shape[1])  # (B, K, T, V)
        loss = self._nll(logits, doc_scores, targets, epsilon)
        return loss.sum() if reduce_loss else loss

    def per_passage_log_probs(self, labels: Tensor, logits: Tensor, n_docs: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities of labels under each passage, from the logits of a `forward` with these labels.

        Args:
            labels: The labels, (B, T).
            logits: The logits that `forward` returned without marginalising, (B*K, T, V).
            n_docs: K.

        Returns:
            Log p(y_t | x, z, y_<t), (B, K, T), and which tokens count, bool, (B, T).
        """
        targets = self._targets(labels, None, bool(self.config.exclude_bos_score))
        return target_log_probs(group_by_question(logits, n_docs), targets.target_ids), targets.scored

    def shift_tokens_right(self, input_ids: Tensor, start_token_id: int | None = None) -> Tensor:
        """Decoder input for labels: the start token, then every label but the last.

        Args:
            input_ids: Labels, (B, T); the pad token replaces -100.
            start_token_id: First decoder token; the model's by default.

        Returns:
            Decoder input, (B, T).
        """
        special = self.rag.special_tokens
        start = special.decoder_start if start_token_id is None else start_token_id
        shifted = input_ids.new_full(input_ids.shape, start)
        shifted[:, 1:] = input_ids[:, :-1]
        return shifted.masked_fill(shifted < 0, special.pad_or_eos)

    @property
    def end_token_ids(self) -> list[int]:
        """The tokens that end an answer."""
        return as_list(self.generation_config.eos_token_id) or as_list(self.rag.special_tokens.eos)

    def _vocabulary_size(self) -> int:
        return self.generator.get_output_embeddings().weight.shape[0]

    def prepare_inputs_for_generation(
        self,
        decoder_input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        *,
        encoder_outputs: dict[str, Mixture],
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Arguments of the next forward pass: the newest tokens, and the encoded contexts.

        ``generate`` rejects arguments that this signature does not name; ``cache`` is the newer ``past_key_values``.
        """
        token_ids = decoder_input_ids
        if next_sequence_length is not None:
            decoder_input_ids = decoder_input_ids[:, -next_sequence_length:]
        flags = ("output_attentions", "output_hidden_states")
        mixture = encoder_outputs["mixture"]
        past = cache if past_key_values is None else past_key_values
        if isinstance(mixture, RecordedMixture):
            return {"decoder_input_ids": token_ids, "encoder_outputs": mixture, CACHE: past}
        doc_scores, n_docs = mixture.doc_scores, {}
        if self._computes_its_own_logits():
            # A subclass written for transformers expects one row of scores for every row of the decoder.
            doc_scores = doc_scores.repeat_interleave(len(decoder_input_ids) // len(doc_scores), dim=0)
            n_docs = {"n_docs": doc_scores.shape[1]}
        return {
            "decoder_input_ids": decoder_input_ids,
            "encoder_outputs": mixture.contexts,
            "doc_scores": doc_scores,
            **n_docs,
            CACHE: past,
            "use_cache": use_cache,
            "do_marginalize": True,
            **{name: kwargs[name] for name in flags if name in kwargs},
        }

    def _overrides(self, *names: str) -> bool:
        """Whether the class is a user's that overrides any of these methods."""
        return any(getattr(type(self), name).__module__.partition(".")[0] != "ragweave" for name in names)

    def _computes_its_own_logits(self) -> bool:
        """Whether a user's class computes the logits of a step; RAG-Sequence has no method ``marginalize``."""
        return self._overrides("forward", *(["marginalize"] if hasattr(self, "marginalize") else []))

    def _generate(
        self,
        contexts: EncodedContexts,
        doc_scores: Tensor,
        encoder_input_ids: Tensor,
        *,
        generation_config: GenerationConfig,
        token_scores: TokenScores | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run transformers' generation loop over mixtures of K passages.

        Args:
            contexts: B*K contexts, encoded with ``reuse``.
            doc_scores: Scaled passage scores, (B, K).
            encoder_input_ids: For processors that inspect the encoder's input, (B, any).
            generation_config: How to decode, completed by `_merged_generation_config`.
            token_scores: Records the search; from `_token_scores`.
            **kwargs: As for transformers' ``generate``.

        Returns:
            The result of transformers' ``generate``.
        """
        kwargs.pop("token_type_ids", None)  # BERT's tokenizers return them; a question is one segment
        # The loop repeats every tensor in this dictionary for its beams. Beams share one mixture, not a tensor.
        mixture = (
            Mixture(contexts, doc_scores)
            if token_scores is None
            else RecordedMixture(contexts, doc_scores, token_scores)
        )
        cache = pop_cache(kwargs.pop("past_key_values", None), kwargs)
        if cache is None and resolve_flag(generation_config.use_cache, self.config.use_cache):
            cache = self.rag.wrapped_generator.new_cache(*doc_scores.shape)
        if cache is not None:
            kwargs[CACHE] = cache
        # The model does not use this mask, but transformers warns without one if pad and end are the same token.
        kwargs.setdefault("attention_mask", torch.ones_like(encoder_input_ids))
        result = super().generate(
            inputs=encoder_input_ids,
            encoder_outputs={"mixture": mixture},
            generation_config=generation_config,
            **kwargs,
        )
        if isinstance(mixture, RecordedMixture):
            read = (result if isinstance(result, Tensor) else result.sequences)[:, :-1]
            self._read(mixture, read, cache, last=True)  # the last tokens may have been skipped
        return result

    def _token_scores(self, config: GenerationConfig, kwargs: dict[str, Any]) -> TokenScores | None:
        """A recorder for a search with one row per question, no beams and no outputs per step, else ``None``."""
        per_step = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
        others = ("assistant_model", "custom_generate", "past_key_values", "cache")
        if (
            config.get_generation_mode() not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)
            or (config.num_return_sequences or 1) > 1
            or not resolve_flag(config.use_cache, self.config.use_cache)
            or any(getattr(config, name, None) for name in (*per_step, "prefill_chunk_size"))
            or any(kwargs.get(name) is not None for name in others)
            or self._computes_its_own_logits()
        ):
            return None
        allowed = kwargs.get("prefix_allowed_tokens_fn")
        draft = getattr(allowed, "draft", None) if self.rag.wrapped_generator.reads_drafts else None
        return TokenScores(allowed, draft, as_list(config.eos_token_id))
