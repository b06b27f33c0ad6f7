"""RAG-Token for TensorFlow: each token of the answer may come from a different passage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops
from transformers import GenerationConfig

from ragweave.errors import ShapeError
from ragweave.modeling.parts import Targets
from ragweave.tf.generation_options import AllowedTokens, Processor, generation_options
from ragweave.tf.keras_backend import Tensor
from ragweave.tf.layers import Encoded, at_least_float32
from ragweave.tf.tf_generation import TFRagForGeneration, group_by_question
from ragweave.tf.tf_marginalization import scored_positions, token_log_marginals, token_nll
from ragweave.tf.tf_outputs import TFRagGenerateOutput


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

    _decodes_mixtures = True

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

    def hf_compute_loss(
        self,
        labels: Tensor,
        y_pred: Tensor,
        smooth_epsilon: float = 0.0,
        from_logits: bool = True,
        reduce_loss: bool = False,
    ) -> Tensor:
        """Cross entropy of the targets that are not padding; not for graphs, since its shape depends on values.

        Args:
            labels: The token that each position predicts, (B, T).
            y_pred: Logits or log-probabilities, such as those of `marginalize`, (B, T, V).
            smooth_epsilon: Label smoothing.
            from_logits: Otherwise ``y_pred`` are probabilities.
            reduce_loss: Return the sum.

        Returns:
            The losses of M targets, (M,), or a scalar.
        """
        labels, y_pred = ops.convert_to_tensor(labels), ops.convert_to_tensor(y_pred)
        if not from_logits:
            y_pred = ops.log(ops.clip(y_pred, 1e-9, 1.0))
        special = self.rag.special_tokens
        (positions,) = ops.nonzero(ops.reshape(scored_positions(labels, special.pad, special.eos), (-1,)))
        vocabulary = ops.shape(y_pred)[-1]
        targets = ops.take(ops.reshape(labels, (-1,)), positions, axis=0)  # (M,)
        logits = ops.take(ops.reshape(y_pred, (-1, vocabulary)), positions, axis=0)  # (M, V)
        loss = ops.sparse_categorical_crossentropy(targets, at_least_float32(logits), from_logits=True)
        if smooth_epsilon:
            smooth = -ops.mean(ops.log_softmax(at_least_float32(logits), axis=-1), axis=-1)
            loss = (1.0 - smooth_epsilon) * loss + smooth_epsilon * smooth
        return ops.sum(loss) if reduce_loss else loss

    def marginalize(self, seq_logits: Tensor, doc_scores: Tensor, n_docs: int | None = None) -> Tensor:
        """Log-probabilities of the mixture, (B, T, V). Arguments as for `RagTokenForGeneration.marginalize`."""
        if n_docs is not None and n_docs != doc_scores.shape[1]:
            raise ShapeError(f"doc_scores has shape {tuple(doc_scores.shape)}; expected (B, {n_docs}).")
        return self._output_logits(seq_logits, doc_scores, do_marginalize=True)

    def _output_logits(self, logits: Tensor, doc_scores: Tensor, do_marginalize: bool) -> Tensor:
        if not do_marginalize:
            return logits
        marginals = token_log_marginals(group_by_question(logits, doc_scores), doc_scores)
        return ops.reshape(marginals, (-1, *ops.shape(logits)[1:]))  # (B*R, T, V)

    def generate(  # noqa: D417  # `RagTokenForGeneration.generate` describes the other arguments
        self,
        input_ids: Tensor = None,
        attention_mask: Tensor = None,
        context_input_ids: Tensor = None,
        context_attention_mask: Tensor = None,
        doc_scores: Tensor = None,
        n_docs: int | None = None,
        encoder_outputs: Encoded | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Processor] = (),
        prefix_allowed_tokens_fn: AllowedTokens | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> Tensor | TFRagGenerateOutput:
        """Generate answers from the mixture over passages (section 2.5 of the paper).

        Arguments as for `RagTokenForGeneration.generate`, and:

        Args:
            encoder_outputs: The same contexts, encoded by `TFRagModel.encode_contexts`.
            logits_processor: Functions from tokens, (N, t), and scores, (N, V), to scores, as numpy arrays.
            prefix_allowed_tokens_fn: From the number of a question and tokens to the tokens that may follow.
            seed: Seed of sampling.
            **kwargs: Fields of GenerationConfig; see `ragweave.tf.generation_options.GenerationOptions`.

        Returns:
            Token ids, (B*num_return_sequences, T), or `TFRagGenerateOutput` with ``return_dict_in_generate``.

        Raises:
            ConfigurationError: An option is unknown.
            MissingContextError: There are neither contexts nor a retriever and a question.
            ShapeError: Contexts, mask and scores disagree.
        """
        contexts = self.rag.prepare_contexts(
            input_ids, attention_mask, context_input_ids, context_attention_mask, doc_scores, n_docs
        )
        config = self._generation_config(generation_config, **kwargs)
        options = generation_options(config)
        answers = self._decode(
            encoder_outputs or self.rag.encode_contexts(contexts),
            contexts.doc_scores,
            options,
            allowed=prefix_allowed_tokens_fn,
            processors=logits_processor,
            seed=seed,
        )
        beams = [beam for question in answers for beam in question]
        longest = max(len(beam.tokens) for beam in beams)
        token_ids = np.full((len(beams), longest), options.pad_token_id, dtype=np.int32)
        for row, beam in zip(token_ids, beams, strict=True):
            row[: len(beam.tokens)] = beam.tokens
        sequences = ops.convert_to_tensor(token_ids)
        if not config.return_dict_in_generate:
            return sequences
        scores = None
        if options.num_beams > 1:
            scores = ops.convert_to_tensor(np.array([beam.score for beam in beams], dtype=np.float32))
        return TFRagGenerateOutput(sequences=sequences, sequences_scores=scores, **contexts.for_generate())
