"""RAG-Token: every token of the answer may lean on another passage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops
from transformers import GenerationConfig

from ragweave.errors import ShapeError
from ragweave.tf.answers import padded, scores_of
from ragweave.tf.contexts import EncodedContexts
from ragweave.tf.generation import TFRagForGeneration
from ragweave.tf.marginalization import Targets, token_log_marginals, token_nll
from ragweave.tf.options import Allowed, Processor, search_options
from ragweave.tf.outputs import TFRagGenerateOutput

Tensor = Any


class TFRagTokenForGeneration(TFRagForGeneration):
    """RAG-Token (Lewis et al. 2020, section 2.1): p(y|x) = prod_t sum_z p(z|x) p(y_t | x, z, y_<t).

    Arguments as for `TFRagModel`.

    Example:
        ```python
        model = TFRagTokenForGeneration.from_pretrained("facebook/rag-token-nq", retriever=retriever)
        inputs = tokenizer("who holds the record in 100m freestyle", return_tensors="np")
        answers = tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True)
        ```
    """

    _searches_mixtures = True

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

        Raises:
            ShapeError: ``n_docs`` is not the K of ``doc_scores``.
        """
        if n_docs is not None and n_docs != doc_scores.shape[1]:
            raise ShapeError(f"doc_scores has shape {tuple(doc_scores.shape)}; expected (B, {n_docs}).")
        return self._shown_logits(seq_logits, doc_scores, do_marginalize=True)

    def _shown_logits(self, logits: Tensor, doc_scores: Tensor, do_marginalize: bool) -> Tensor:
        if not do_marginalize:
            return logits
        n_questions, n_docs = ops.shape(doc_scores)
        tokens, vocabulary = ops.shape(logits)[1:]
        # (B, K, R*T, V): beams are more positions
        grouped = ops.reshape(logits, (n_questions, n_docs, -1, vocabulary))
        marginals = token_log_marginals(grouped, doc_scores)
        return ops.reshape(marginals, (-1, tokens, vocabulary))  # (B*R, T, V)

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
        logits_processor: Sequence[Processor] = (),
        prefix_allowed_tokens_fn: Allowed | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> Tensor | TFRagGenerateOutput:
        """Decode answers from the mixture over passages (section 2.5 of the paper).

        Args:
            input_ids: Question tokens, (B, S); needs a retriever unless contexts are given.
            attention_mask: Their mask, (B, S).
            context_input_ids: Contexts, (B*K, S), used instead of retrieval.
            context_attention_mask: Their mask, (B*K, S).
            doc_scores: Scaled passage scores, (B, K).
            n_docs: K; from ``doc_scores`` or the configuration where left out.
            encoder_outputs: The given contexts as `TFRagModel.read` read them.
            generation_config: How to decode.
            logits_processor: Functions from tokens, (N, t), and scores, (N, V), to scores, as arrays of numpy.
            prefix_allowed_tokens_fn: From the number of a question and tokens to the tokens that may follow.
            seed: Where a search that draws begins.
            **kwargs: Fields of GenerationConfig that `ragweave.tf.options` knows: ``num_beams``,
                ``max_new_tokens``, ``do_sample``, ``num_return_sequences``, ``return_dict_in_generate``, ...

        Returns:
            Token ids, (B*num_return_sequences, T), or `TFRagGenerateOutput` with ``return_dict_in_generate``.

        Raises:
            ConfigurationError: An option is not known here.
            MissingContextError: Neither contexts nor a retriever and a question are there.
            ShapeError: Contexts, mask and scores disagree.
        """
        contexts = self.rag.contexts_for(
            input_ids, attention_mask, context_input_ids, context_attention_mask, doc_scores, n_docs
        )
        config = self._merged_generation_config(generation_config, **kwargs)
        options = search_options(config)
        answers = self._searched(
            encoder_outputs or self.rag.read(contexts),
            contexts.doc_scores,
            options,
            allowed=prefix_allowed_tokens_fn,
            logits_processor=logits_processor,
            seed=seed,
        )
        sequences = padded(answers, options.num_return_sequences, options.pad)
        if not config.return_dict_in_generate:
            return sequences
        scores = scores_of(answers, options.num_return_sequences) if options.num_beams > 1 else None
        return TFRagGenerateOutput(sequences=sequences, sequences_scores=scores, **contexts.shown())
