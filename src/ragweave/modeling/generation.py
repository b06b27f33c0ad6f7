"""What both models for generation share: one forward pass with a loss, and stepwise decoding of the mixture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.cache_utils import Cache

from ragweave.marginalization import group_by_question, scored_positions, target_log_probs
from ragweave.modeling.arguments import chosen, refuse_unknown
from ragweave.modeling.base import RagForGeneration
from ragweave.modeling.contexts import EncodedContexts
from ragweave.modeling.labels import IGNORE_INDEX, Targets, check_label_rows, check_label_shapes, check_labels
from ragweave.modeling.losses import QuestionLosses
from ragweave.outputs import RetrievAugLMMarginOutput


@dataclass(frozen=True)
class Mixture:
    """What B questions are answered from: contexts that were read, and the passages' scores, (B, K)."""

    contexts: EncodedContexts
    doc_scores: Tensor


class MixtureGeneration(RagForGeneration, GenerationMixin):
    """Forward pass with a loss, and transformers' generation loops over the mixture."""

    @abstractmethod
    def _nll(self, logits: Tensor, doc_scores: Tensor, targets: Targets, epsilon: float) -> Tensor:
        """-log p(y|x) of B questions, (B,), from logits (B, K, T, V)."""

    @abstractmethod
    def _shown_logits(self, logits: Tensor, doc_scores: Tensor, do_marginalize: bool) -> Tensor:
        """The logits that `forward` returns, from the generator's (B*K*R, T, V)."""

    def forward(  # noqa: D417  # the others are described where they belong
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: EncodedContexts | tuple[Tensor, ...] | dict[str, Tensor] | None = None,
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
        """Score answers, with a loss where labels are given.

        Arguments as for `RagModel.forward`, and:

        Args:
            **kwargs: ``return_dict``; anything unknown is refused.
            exclude_bos_score: Leave out the first target where it is the BOS token in every row.
            do_marginalize: Return log-probabilities of the mixture, (B, T, V), as logits (RAG-Token only).
            reduce_loss: Sum the loss over the batch. Without it, there is one for each question, and ``backward``
                takes the gradient of their sum.
            labels: Answer tokens, (B, T); see `ragweave.modeling.labels` for what they are aligned with.

        Returns:
            `RetrievAugLMMarginOutput`; ``loss`` is -log p(y|x), (B,) or, reduced, a scalar.

        Raises:
            MissingContextError: Neither contexts nor a retriever and a question are there.
            ShapeError: Arguments disagree about B or K, or labels are no token ids.
        """
        return_dict = kwargs.pop("return_dict", True)
        refuse_unknown(kwargs)
        targets = None
        if labels is not None:
            check_label_rows(labels, doc_scores if doc_scores is not None else input_ids)
            targets = self._targets(
                labels, decoder_input_ids, chosen(exclude_bos_score, self.config.exclude_bos_score)
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
            question_strings=question_strings,
        )
        loss = None
        if targets is not None:
            loss = self._loss(output.logits, output.doc_scores, targets)
            reduce_loss = chosen(reduce_loss, self.config.reduce_loss)
            loss = loss.sum() if reduce_loss else loss.as_subclass(QuestionLosses)
        logits = self._shown_logits(
            output.logits, output.doc_scores, chosen(do_marginalize, self.config.do_marginalize)
        )
        result = RetrievAugLMMarginOutput(loss=loss, **{**output, "logits": logits})
        return result if return_dict is not False else result.to_tuple()

    def per_passage_log_probs(self, labels: Tensor, logits: Tensor, n_docs: int) -> tuple[Tensor, Tensor]:
        """What each passage alone says of labels, from the logits of a `forward` that was given them.

        Args:
            labels: The labels, (B, T).
            logits: The logits that `forward` returned without marginalising, (B*K, T, V).
            n_docs: K.

        Returns:
            Log p(y_t | x, z, y_<t), (B, K, T), and which tokens count, bool, (B, T).
        """
        targets = self._targets(labels, None, bool(self.config.exclude_bos_score))
        return target_log_probs(group_by_question(logits, n_docs), targets.target_ids), targets.scored

    def _targets(self, labels: Tensor, decoder_input_ids: Tensor | None, exclude_bos_score: bool) -> Targets:
        """Decoder input, targets and which of them count; `ragweave.modeling.labels` explains the two conventions.

        A caller's decoder input that equals the labels means the same as labels alone.
        """
        check_label_shapes(labels, decoder_input_ids)
        check_labels(labels, self._vocabulary_size())
        special = self.rag.special_tokens
        readable = labels.masked_fill(labels < 0, special.filler)
        if decoder_input_ids is not None and not torch.equal(decoder_input_ids, readable):
            target_ids = labels
        elif self.config.generator_is_causal or labels.shape[1] == 1:
            decoder_input_ids, target_ids = self.shift_tokens_right(labels), labels
        else:
            decoder_input_ids = readable
            target_ids = torch.cat([labels[:, 1:], labels.new_full((len(labels), 1), IGNORE_INDEX)], dim=1)
        scored = scored_positions(target_ids, special.pad, special.eos)
        if exclude_bos_score and special.bos is not None and bool((target_ids[:, 0] == special.bos).all()):
            scored[:, 0] = False
        return Targets(decoder_input_ids, target_ids, scored)

    @property
    def end_token_ids(self) -> list[int]:
        """The tokens of which any ends an answer."""
        ends = self.generation_config.eos_token_id or self.rag.eos_token_id
        if ends is None:
            return []
        return list(ends) if isinstance(ends, (list, tuple)) else [ends]

    def _vocabulary_size(self) -> int:
        return self.generator.get_output_embeddings().weight.shape[0]

    def _loss(self, logits: Tensor, doc_scores: Tensor, targets: Targets) -> Tensor:
        grouped = group_by_question(logits, doc_scores.shape[1])
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
            exclude_bos_score: Leave out the first target where it is the BOS token in every row.
            n_docs: K; taken from ``doc_scores`` where left out.

        Returns:
            The loss, (B,) or a scalar.
        """
        targets = self._targets(target, target, exclude_bos_score)
        logits = group_by_question(seq_logits, n_docs or doc_scores.shape[1])
        loss = self._nll(logits, doc_scores, targets, epsilon)
        return loss.sum() if reduce_loss else loss

    def prepare_inputs_for_generation(
        self,
        decoder_input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        *,
        encoder_outputs: dict[str, Mixture],
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Arguments of the next forward pass: the newest tokens, and the contexts that were read once."""
        if next_sequence_length is not None:
            decoder_input_ids = decoder_input_ids[:, -next_sequence_length:]
        wanted = ("output_attentions", "output_hidden_states")
        return {
            "decoder_input_ids": decoder_input_ids,
            "encoder_outputs": encoder_outputs["mixture"].contexts,
            "doc_scores": encoder_outputs["mixture"].doc_scores,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "do_marginalize": True,
            **{name: kwargs[name] for name in wanted if name in kwargs},
        }

    def search(
        self,
        contexts: EncodedContexts,
        doc_scores: Tensor,
        encoder_input_ids: Tensor,
        *,
        generation_config: GenerationConfig,
        **kwargs: Any,
    ) -> Any:
        """Run transformers' generation loop over mixtures of K passages.

        Args:
            contexts: B*K contexts that were read with ``reuse``.
            doc_scores: Scaled passage scores, (B, K).
            encoder_input_ids: What processors that look at the encoder's input see, (B, any).
            generation_config: How to decode, completed by `_merged_generation_config`.
            **kwargs: As for transformers' ``generate``.

        Returns:
            What transformers' ``generate`` returns.
        """
        kwargs.pop("token_type_ids", None)  # BERT's tokenizers return it; a question is one segment
        # The loop repeats every tensor that it finds here for its beams; beams share a mixture as it is.
        shared = {"mixture": Mixture(contexts, doc_scores)}
        if kwargs.get("past_key_values") is None and chosen(
            generation_config.use_cache, self.config.use_cache
        ):
            kwargs["past_key_values"] = self.rag.adapter.new_cache(
                n_questions=doc_scores.shape[0], n_docs=doc_scores.shape[1]
            )
        # Nothing looks at this mask: transformers asks for one where padding and end are the same token.
        kwargs.setdefault("attention_mask", torch.ones_like(encoder_input_ids))
        return super().generate(
            inputs=encoder_input_ids, encoder_outputs=shared, generation_config=generation_config, **kwargs
        )


def encoder_view(context_input_ids: Tensor, n_docs: int) -> Tensor:
    """A question's K contexts as one row, (B, K*S): what processors that look at the encoder's input see."""
    return context_input_ids.reshape(context_input_ids.shape[0] // n_docs, -1)
