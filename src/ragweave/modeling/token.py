"""RAG-Token: every token of the answer may lean on another passage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from ragweave.marginalization import group_by_question, token_log_marginals, token_nll
from ragweave.modeling.contexts import EncodedContexts
from ragweave.modeling.generation import MixtureGeneration, encoder_view
from ragweave.modeling.labels import Targets


class RagTokenForGeneration(MixtureGeneration):
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

    def marginalize(self, seq_logits: Tensor, doc_scores: Tensor, n_docs: int | None = None) -> Tensor:
        """Log-probabilities of the mixture.

        Args:
            seq_logits: Generator logits, (B*K, T, V).
            doc_scores: Scaled passage scores, (B, K).
            n_docs: K; taken from ``doc_scores`` where left out.

        Returns:
            Log-probabilities, (B, T, V).
        """
        return token_log_marginals(group_by_question(seq_logits, n_docs or doc_scores.shape[1]), doc_scores)

    def _shown_logits(self, logits: Tensor, doc_scores: Tensor, do_marginalize: bool) -> Tensor:
        if not do_marginalize:
            return logits
        n_questions, n_docs = doc_scores.shape
        grouped = logits.view(
            n_questions, n_docs, -1, logits.shape[-1]
        )  # (B, K, R*T, V): beams are more positions
        return token_log_marginals(grouped, doc_scores).view(-1, *logits.shape[1:])  # (B*R, T, V)

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
        """Decode answers from the mixture over passages (section 2.5 of the paper).

        Contexts are read once and shared by the beams; the loops, processors, stopping criteria and streamers
        are transformers' own.

        Args:
            input_ids: Question tokens, (B, S); needs a retriever unless contexts are given.
            attention_mask: Their mask, (B, S).
            context_input_ids: Contexts, (B*K, S), used instead of retrieval.
            context_attention_mask: Their mask, (B*K, S).
            doc_scores: Scaled passage scores, (B, K).
            n_docs: K; from ``doc_scores`` or the configuration where left out.
            encoder_outputs: The given contexts as `RagModel.read` read them with ``reuse``.
            generation_config: How to decode.
            logits_processor: Processors beside those of the configuration.
            stopping_criteria: Criteria beside those of the configuration.
            **kwargs: As for transformers' ``generate``: ``num_beams``, ``max_new_tokens``, ``do_sample``,
                ``num_return_sequences``, ``streamer``, ``prefix_allowed_tokens_fn``, ...

        Returns:
            Token ids, (B*num_return_sequences, T). With ``return_dict_in_generate``, transformers' output for
            the loop that ran, and in it ``doc_scores``, ``context_input_ids``, ``context_attention_mask`` and,
            where the model retrieved, ``retrieved_doc_ids``, shaped as in `RagSequenceGenerateOutput`.

        Raises:
            MissingContextError: Neither contexts nor a retriever and a question are there.
            ShapeError: Contexts, mask and scores disagree.
        """
        contexts = self.rag.contexts_for(
            input_ids, attention_mask, context_input_ids, context_attention_mask, doc_scores, n_docs
        )
        config = self._merged_generation_config(generation_config)
        model_kwargs = config.update(**kwargs)
        answers = self.search(
            encoder_outputs or self.rag.read(contexts, reuse=True),
            contexts.doc_scores,
            encoder_view(contexts.context_input_ids, contexts.doc_scores.shape[1]),
            generation_config=config,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            **model_kwargs,
        )
        if config.return_dict_in_generate:
            for name, value in contexts.shown().items():
                answers[name] = value
        return answers
