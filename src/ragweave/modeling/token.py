"""RAG-Token: each token of the answer may come from a different passage. PCED: the same by another rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from ragweave.marginalization import (
    contrast_strength,
    contrastive_scores,
    group_by_question,
    token_log_marginals,
    token_nll,
)
from ragweave.modeling.contexts import EncodedContexts
from ragweave.modeling.generation import RagForGeneration
from ragweave.modeling.parts import Targets

DEFAULT_MAX_LENGTH = 20
"""Tokens of an answer, the start token included, if nothing else is set: transformers' default."""


class RagTokenForGeneration(RagForGeneration):
    """RAG-Token (Lewis et al. 2020, section 2.1): p(y|x) = prod_t sum_z p(z|x) p(y_t | x, z, y_<t).

    Arguments as for `RagModel`.

    Example:
        ```python
        model = RagTokenForGeneration.from_pretrained("facebook/rag-token-nq", retriever=retriever)
        inputs = tokenizer("who holds the record in 100m freestyle", return_tensors="pt")
        answers = tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True)
        ```
    """

    def _nll(self, logits: Tensor, doc_scores: Tensor, targets: Targets, epsilon: float) -> Tensor:
        return token_nll(logits, doc_scores, targets.target_ids, targets.scored, epsilon)

    def get_nll(  # type: ignore[override]  # transformers' order of arguments differs between its two classes
        self,
        seq_logits: Tensor,
        doc_scores: Tensor,
        target: Tensor,
        reduce_loss: bool = False,
        epsilon: float = 0.0,
        n_docs: int | None = None,
        exclude_bos_score: bool = False,
    ) -> Tensor:
        """As for RAG-Sequence, but with the order of transformers' arguments for RAG-Token."""
        return super().get_nll(
            seq_logits, doc_scores, target, reduce_loss, epsilon, exclude_bos_score, n_docs
        )

    def marginalize(self, seq_logits: Tensor, doc_scores: Tensor, n_docs: int | None = None) -> Tensor:
        """Log-probabilities of the mixture.

        Args:
            seq_logits: Generator logits, (B*K, T, V).
            doc_scores: Scaled passage scores, (B, K).
            n_docs: K; by default that of ``doc_scores``.

        Returns:
            Log-probabilities, (B, T, V).
        """
        return token_log_marginals(group_by_question(seq_logits, n_docs or doc_scores.shape[1]), doc_scores)

    def _output_logits(
        self,
        logits: Tensor,
        doc_scores: Tensor,
        do_marginalize: bool,
        contexts: EncodedContexts | None = None,
    ) -> Tensor:
        if not do_marginalize:
            return logits
        if self._overrides("marginalize"):
            return self.marginalize(logits, doc_scores, doc_scores.shape[1])
        # The R rows of a passage count as further positions: all of a question's rows have the same p(z|x).
        grouped = logits.view(*doc_scores.shape, -1, logits.shape[-1])  # (B, K, R*T, V)
        return self._combined(grouped, doc_scores, contexts).view(-1, *logits.shape[1:])  # (B*R, T, V)

    def _combined(self, logits: Tensor, doc_scores: Tensor, contexts: EncodedContexts | None) -> Tensor:
        """Scores of the next tokens, (B, R*T, V), from the logits under each passage, (B, K, R*T, V)."""
        return token_log_marginals(logits, doc_scores)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        doc_scores: Tensor | None = None,
        n_docs: int | None = None,
        encoder_outputs: EncodedContexts | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generate answers from the mixture over passages (section 2.5 of the paper).

        Contexts are encoded once and shared by the beams. The loops, processors, stopping criteria and streamers are
        those of transformers.

        Args:
            input_ids: Question tokens, (B, S); needs a retriever if there are no contexts.
            attention_mask: Their mask, (B, S).
            context_input_ids: Contexts, (B*K, S), used instead of retrieval.
            context_attention_mask: Their mask, (B*K, S).
            doc_scores: Scaled passage scores, (B, K).
            n_docs: K; by default that of ``doc_scores``, or the configuration's if there are no scores.
            encoder_outputs: The same contexts, encoded by `RagModel.encode_contexts` with ``reuse``.
            generation_config: How to decode.
            logits_processor: Processors in addition to those of the configuration.
            stopping_criteria: Criteria in addition to those of the configuration.
            **kwargs: As for transformers' ``generate``: ``num_beams``, ``max_new_tokens``, ``do_sample``,
                ``num_return_sequences``, ``streamer``, ``prefix_allowed_tokens_fn``, ...

        Returns:
            Token ids, (B*num_return_sequences, T). With ``return_dict_in_generate``, transformers' output and the
            fields ``doc_scores``, ``context_input_ids``, ``context_attention_mask``, without beams
            ``passage_log_probs`` and, if the model retrieved, ``retrieved_doc_ids``, shaped as in
            `RagSequenceGenerateOutput`.

        Raises:
            MissingContextError: There are neither contexts nor a retriever and a question.
            ShapeError: Contexts, mask and scores disagree.
        """
        contexts = self.rag.prepare_contexts(
            input_ids, attention_mask, context_input_ids, context_attention_mask, doc_scores, n_docs
        )
        config = self._merged_generation_config(generation_config)
        model_kwargs = config.update(**kwargs)
        if config.max_new_tokens is None and config.max_length in (None, DEFAULT_MAX_LENGTH):
            # Passed explicitly, or transformers adds the length of the start token.
            model_kwargs["max_length"] = DEFAULT_MAX_LENGTH
        scores = self._token_scores(config, model_kwargs)
        answers = self._generate(
            encoder_outputs or self.rag.encode_contexts(contexts, reuse=True),
            contexts.doc_scores,
            # Processors that inspect the encoder's input see a question's K contexts as one row.
            contexts.context_input_ids.reshape(contexts.doc_scores.shape[0], -1),  # (B, K*S)
            generation_config=config,
            token_scores=scores,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            **model_kwargs,
        )
        if config.return_dict_in_generate:
            for name, value in contexts.for_generate().items():
                answers[name] = value
            if scores is not None:
                answers["passage_log_probs"] = scores.log_probs(answers.sequences)
        return answers


class PcedForGeneration(RagTokenForGeneration):
    """Decodes with PCED's rule (arXiv 2601.08670) in place of RAG-Token's mixture; answers are scored by the mixture.

    The next token is the one that some passage supports most, relative to the generator without a passage:

        y_t = argmax_v max_k (1 + beta_k) s_k(v) - beta_k s_0(v) + gamma log p(z_k|x)

    with s_k(v) the logits of p(v | x, z_k, y_<t) and s_0(v) those of p(v | x, y_<t). beta_k is the Jensen-Shannon
    divergence of the two at the first token of the answer, and gamma is 2.5.

    Arguments as for `RagModel`. The last of a question's K+1 contexts has no passage and the score -inf, so that the
    mixture leaves it out.
    """

    def _combined(self, logits: Tensor, doc_scores: Tensor, contexts: EncodedContexts | None) -> Tensor:
        if logits.shape[1] == 1:  # nothing to contrast with, as when a conversation is rewritten
            return super()._combined(logits, doc_scores, contexts)
        strength = None if contexts is None else contexts.strength
        if strength is None:
            strength = contrast_strength(logits[:, :, 0])
            if contexts is not None:
                contexts.strength = strength
        return contrastive_scores(logits, doc_scores, strength)
