"""RAG-Sequence for TensorFlow: one passage explains the whole answer.

Notation used for tensor shapes
    B questions, K passages per question, R proposals per passage, C distinct hypotheses per question, T tokens with
    the start token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from keras import ops
from transformers import GenerationConfig

from ragweave.errors import ConfigurationError
from ragweave.modeling.parts import IGNORE_INDEX, Targets, resolve_flag
from ragweave.modeling.proposals import Proposals, collect_proposals
from ragweave.tf.beam_search import Beam
from ragweave.tf.generation_options import AllowedTokens, Ids, Processor, Scores, generation_options
from ragweave.tf.keras_backend import Tensor
from ragweave.tf.layers import Encoded, at_least_float32
from ragweave.tf.tf_generation import TFRagForGeneration
from ragweave.tf.tf_marginalization import passage_log_probs, sequence_nll, target_log_probs
from ragweave.tf.tf_outputs import TFRagGenerateOutput

Decoding = Literal["thorough", "fast"]

DEFAULT_NEW_TOKENS = 20
"""Tokens of an answer, without the start token, if nothing else is set: transformers' default."""

MAX_LOGITS = 2**27
"""Hypotheses are scored in slices whose logits have fewer elements than this (0.5 GiB in float32)."""


class TFRagSequenceForGeneration(TFRagForGeneration):
    """RAG-Sequence (Lewis et al. 2020, section 2.1): p(y|x) = sum_z p(z|x) prod_t p(y_t | x, z, y_<t).

    Arguments as for `TFRagModel`.

    Example:
        ```python
        model = TFRagSequenceForGeneration.from_pretrained("facebook/rag-sequence-nq", retriever=retriever)
        inputs = tokenizer("who holds the record in 100m freestyle", return_tensors="np")
        answers = tokenizer.batch_decode(model.generate(**inputs, num_beams=4), skip_special_tokens=True)
        ```
    """

    _decodes_mixtures = False

    def _nll(self, logits: Tensor, doc_scores: Tensor, targets: Targets, epsilon: float) -> Tensor:
        return sequence_nll(logits, doc_scores, targets.target_ids, targets.scored, epsilon)

    def _output_logits(self, logits: Tensor, doc_scores: Tensor, do_marginalize: bool) -> Tensor:
        return logits

    def hf_compute_loss(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Mean cross entropy of the targets other than -100, (1,), from labels, (N, T), and logits, (N, T, V).

        It ignores passages; `get_nll` is RAG-Sequence's loss. transformers' class inherits it.
        """
        labels, logits = ops.convert_to_tensor(labels), at_least_float32(ops.convert_to_tensor(logits))
        losses = ops.sparse_categorical_crossentropy(ops.maximum(labels, 0), logits, from_logits=True)
        scored = ops.cast(ops.not_equal(labels, IGNORE_INDEX), losses.dtype)
        return ops.reshape(ops.sum(losses * scored) / ops.sum(scored), (1,))

    def generate(
        self,
        input_ids: Tensor = None,
        attention_mask: Tensor = None,
        context_input_ids: Tensor = None,
        context_attention_mask: Tensor = None,
        doc_scores: Tensor = None,
        do_deduplication: bool | None = None,
        num_return_sequences: int | None = None,
        num_beams: int | None = None,
        n_docs: int | None = None,
        encoder_outputs: Encoded | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Processor] = (),
        prefix_allowed_tokens_fn: AllowedTokens | None = None,
        decoding: Decoding = "thorough",
        seed: int | None = None,
        **kwargs: Any,
    ) -> Tensor | TFRagGenerateOutput:
        """Generate answers, each explained by one passage (section 2.5 of the paper).

        A search under every passage proposes hypotheses. *Thorough* decoding scores each of them under all passages
        and sums; *fast* decoding treats a hypothesis as impossible under the passages that did not propose it.

        Arguments as for `RagSequenceForGeneration.generate` and `TFRagTokenForGeneration.generate`.

        Returns:
            Token ids, (B*num_return_sequences, T), or `TFRagGenerateOutput` with ``return_dict_in_generate``. A
            question with fewer distinct hypotheses gets rows of padding with a score of -inf at the end.

        Raises:
            ConfigurationError: ``decoding`` or an option is unknown.
            MissingContextError: There are neither contexts nor a retriever and a question.
            ShapeError: Contexts, mask and scores disagree.
        """
        if decoding not in ("thorough", "fast"):
            raise ConfigurationError(f"decoding is {decoding!r}; choose 'thorough' or 'fast'.")
        contexts = self.rag.prepare_contexts(
            input_ids, attention_mask, context_input_ids, context_attention_mask, doc_scores, n_docs
        )
        config = self._generation_config(
            generation_config, self.generator.generation_config, num_beams=num_beams, **kwargs
        )
        if config.max_new_tokens is None and config.max_length == GenerationConfig().max_length:
            config.max_new_tokens = DEFAULT_NEW_TOKENS
        count = num_return_sequences or config.num_return_sequences or 1
        beams = config.num_beams or 1
        config.num_return_sequences = beams if beams > 1 else count if config.do_sample else 1
        options = generation_options(config)
        priors = np.asarray(ops.convert_to_numpy(passage_log_probs(contexts.doc_scores)))  # (B, K)
        encoded = encoder_outputs or self.rag.encode_contexts(contexts)
        searches = self._decode(
            encoded,
            ops.zeros((priors.size, 1)),  # under each passage, a mixture of that passage alone
            options,
            allowed=prefix_allowed_tokens_fn and _per_question(prefix_allowed_tokens_fn, priors.shape[1]),
            processors=logits_processor,
            seed=seed,
        )
        proposals = collect_proposals(
            _by_question([[beam.tokens for beam in beams] for beams in searches], priors.shape[1]),
            np.isfinite(priors).tolist(),
            options.pad_token_id,
            options.eos_token_id,
            deduplicate=resolve_flag(do_deduplication, self.config.do_deduplication),
        )
        priors = priors[..., None]  # (B, K, 1)
        if decoding == "thorough":
            log_probs = self._log_probs(encoded, proposals)
        else:
            log_probs = _proposed_log_probs(searches, proposals)
            priors = np.where(proposals.proposal >= 0, priors, -np.inf)  # (B, K, C)
        scores = self._scores(proposals, log_probs, priors)
        token_ids, scores = _best(proposals, scores, count, options.pad_token_id)
        sequences = ops.convert_to_tensor(token_ids.astype("int32"))
        if not config.return_dict_in_generate:
            return sequences
        return TFRagGenerateOutput(
            sequences=sequences, sequences_scores=ops.convert_to_tensor(scores), **contexts.for_generate()
        )

    def _log_probs(self, encoded: Encoded, proposals: Proposals[Ids]) -> Scores:
        """Log-probabilities of the tokens of all hypotheses under all passages, (B, K, C, T-1)."""
        n_questions, n_docs, count = proposals.proposal.shape
        length = proposals.token_ids.shape[-1]
        cross = self.generator.cross_keys_values(encoded.last_hidden_state)
        logits_each = n_questions * n_docs * (length - 1) * self.generator.config.vocab_size
        at_once = max(1, MAX_LOGITS // logits_each)
        parts = []
        for start in range(0, count, at_once):
            token_ids = proposals.token_ids[:, None, start : start + at_once]  # (B, 1, C', T)
            rows = np.repeat(token_ids, n_docs, axis=1).reshape(-1, length)  # (B*K*C', T)
            ids = ops.convert_to_tensor(rows.astype("int32"))
            logits = self.generator.decode(cross, encoded.attention_mask, ids[:, :-1]).logits
            log_probs = target_log_probs(logits[:, None], ids[:, 1:])  # (B*K*C', 1, T-1)
            parts.append(
                np.asarray(ops.convert_to_numpy(log_probs)).reshape(n_questions, n_docs, -1, length - 1)
            )
        return np.concatenate(parts, axis=2)

    def _scores(self, proposals: Proposals[Ids], log_probs: Scores, priors: Scores) -> Scores:
        """Log p(y|x) = log sum_z p(z|x) p(y|x,z) of all hypotheses, (B, C); -inf where there is none.

        ``log_probs`` are (B, K, C, T-1) and ``priors``, log p(z|x), (B, K, C or 1). A BOS token that begins all
        hypotheses of a question is not scored, as in transformers.
        """
        exists = proposals.lengths > 0  # (B, C)
        scored = np.arange(1, proposals.token_ids.shape[-1]) < proposals.lengths[..., None]  # (B, C, T-1)
        bos = self.rag.special_tokens.bos
        if bos is not None:
            all_bos = ((proposals.token_ids[..., 1] == bos) | ~exists).all(axis=1)
            scored[all_bos, :, 0] = False
        joint = np.where(scored[:, None], log_probs, 0.0).sum(-1) + priors  # (B, K, C)
        return np.where(exists, np.logaddexp.reduce(joint, axis=1), -np.inf).astype(np.float32)


def _proposed_log_probs(searches: Sequence[Sequence[Beam]], proposals: Proposals[Ids]) -> Scores:
    """Log-probabilities of hypotheses under the passages that proposed them, (B, K, C, T-1); 0 under others."""
    n_questions, n_docs, count = proposals.proposal.shape
    shape = (n_questions, n_docs, count, proposals.token_ids.shape[-1] - 1)
    log_probs = np.zeros(shape, dtype=np.float32)
    for b, k, c in np.argwhere(proposals.proposal >= 0):
        beam = searches[b * n_docs + k][proposals.proposal[b, k, c]]
        log_probs[b, k, c, : len(beam.log_probs)] = beam.log_probs
    return log_probs


def _best(proposals: Proposals[Ids], scores: Scores, count: int, pad_token_id: int) -> tuple[Ids, Scores]:
    """The best hypotheses of each question: token ids, (B*count, T), and scores, (B*count,).

    Rows of padding with a score of -inf stand for missing ones.
    """
    lacking = max(count - scores.shape[1], 0)
    scores = np.pad(scores, ((0, 0), (0, lacking)), constant_values=-np.inf)
    lengths = np.pad(proposals.lengths, ((0, 0), (0, lacking)))
    token_ids = np.pad(proposals.token_ids, ((0, 0), (0, lacking), (0, 0)), constant_values=pad_token_id)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    questions = np.arange(len(scores))[:, None]
    longest = lengths[questions, best].max()
    return token_ids[questions, best, :longest].reshape(-1, longest), scores[questions, best].reshape(-1)


def _by_question(searches: list[Any], n_docs: int) -> list[list[Any]]:
    """(B*K) items to (B, K)."""
    return [searches[start : start + n_docs] for start in range(0, len(searches), n_docs)]


def _per_question(allowed: AllowedTokens, n_docs: int) -> AllowedTokens:
    """A ``prefix_allowed_tokens_fn`` called by question, for B*K searches of one passage each."""
    return lambda search, tokens: allowed(search // n_docs, tokens)
