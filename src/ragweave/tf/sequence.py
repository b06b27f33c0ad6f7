"""RAG-Sequence: one passage explains the whole answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from keras import ops
from transformers import GenerationConfig

from ragweave.errors import ConfigurationError
from ragweave.tf.answers import padded, scores_of
from ragweave.tf.contexts import EncodedContexts
from ragweave.tf.generation import TFRagForGeneration
from ragweave.tf.hypotheses import Hypotheses, collect, ranked
from ragweave.tf.marginalization import Targets, passage_log_probs, sequence_nll, target_log_probs
from ragweave.tf.options import Allowed, Processor, Scores, search_options
from ragweave.tf.outputs import TFRagGenerateOutput

Tensor = Any
Decoding = Literal["thorough", "fast"]

MAX_LOGITS = 2**27
"""Hypotheses are scored in slices whose logits stay below so many elements (0.5 GiB in float32)."""


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

    _searches_mixtures = False

    def _nll(self, logits: Tensor, doc_scores: Tensor, targets: Targets, epsilon: float) -> Tensor:
        return sequence_nll(logits, doc_scores, targets.target_ids, targets.scored, epsilon)

    def _shown_logits(self, logits: Tensor, doc_scores: Tensor, do_marginalize: bool) -> Tensor:
        return logits

    def generate(  # noqa: D417  # the others are described where they belong
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        doc_scores: Tensor | None = None,
        do_deduplication: bool | None = None,
        num_return_sequences: int | None = None,
        num_beams: int | None = None,
        n_docs: int | None = None,
        encoder_outputs: EncodedContexts | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Processor] = (),
        prefix_allowed_tokens_fn: Allowed | None = None,
        decoding: Decoding = "thorough",
        seed: int | None = None,
        **kwargs: Any,
    ) -> Tensor | TFRagGenerateOutput:
        """Decode answers of which one passage each explains the whole (section 2.5 of the paper).

        A search under every passage proposes hypotheses; *thorough* decoding scores each of them under all passages
        and sums, *fast* decoding takes a hypothesis as impossible under the passages that did not propose it.

        Arguments as for `TFRagTokenForGeneration.generate`, and:

        Args:
            do_deduplication: Score equal hypotheses of different passages once.
            num_return_sequences: Answers per question, best first.
            num_beams: R, beams per passage.
            decoding: "thorough" or "fast".

        Returns:
            Token ids, (B*num_return_sequences, T), or `TFRagGenerateOutput` with ``return_dict_in_generate``. A
            question with fewer distinct hypotheses than asked for gets rows of padding with a score of -inf at the
            end.

        Raises:
            ConfigurationError: ``decoding`` is neither word, or an option is not known here.
            MissingContextError: Neither contexts nor a retriever and a question are there.
            ShapeError: Contexts, mask and scores disagree.
        """
        if decoding not in ("thorough", "fast"):
            raise ConfigurationError(f"decoding is {decoding!r}; choose 'thorough' or 'fast'.")
        contexts = self.rag.contexts_for(
            input_ids, attention_mask, context_input_ids, context_attention_mask, doc_scores, n_docs
        )
        config = self._merged_generation_config(
            generation_config, self.generator.generation_config, num_beams=num_beams, **kwargs
        )
        wanted = num_return_sequences or config.num_return_sequences or 1
        beams = config.num_beams or 1
        config.num_return_sequences = beams if beams > 1 else wanted if config.do_sample else 1
        options = search_options(config)
        n_docs = contexts.doc_scores.shape[1]
        read = encoder_outputs or self.rag.read(contexts)
        found = self._searched(
            read,
            ops.zeros((read.attention_mask.shape[0], 1)),  # under each passage, a mixture of that one alone
            options,
            allowed=None
            if prefix_allowed_tokens_fn is None
            else _by_question(prefix_allowed_tokens_fn, n_docs),
            logits_processor=logits_processor,
            seed=seed,
        )
        priors = np.asarray(ops.convert_to_numpy(passage_log_probs(contexts.doc_scores)))
        deduplicate = self.config.do_deduplication if do_deduplication is None else do_deduplication
        hypotheses = collect(found, priors > -np.inf, options, deduplicate=deduplicate)
        if decoding == "thorough":
            hypotheses = replace(hypotheses, log_probs=self._log_probs(read, hypotheses, options.pad))
        answers = ranked(hypotheses, priors, wanted, bos=self.rag.special_tokens.bos)
        sequences = padded(answers, wanted, options.pad)
        if not config.return_dict_in_generate:
            return sequences
        return TFRagGenerateOutput(
            sequences=sequences, sequences_scores=scores_of(answers, wanted), **contexts.shown()
        )

    def _log_probs(self, read: EncodedContexts, hypotheses: Hypotheses, pad: int) -> Scores:
        """Log-probabilities of the tokens of all hypotheses under all passages, (B, K, C, T-1)."""
        n_questions, n_docs, count, length = hypotheses.log_probs.shape
        tokens = hypotheses.padded(pad)  # (B, C, T)
        cross = self.generator.cross_keys_values(read.last_hidden_state)
        logits_each = n_questions * n_docs * length * self.generator.config.vocab_size
        at_once = max(1, MAX_LOGITS // logits_each)
        parts = []
        for start in range(0, count, at_once):
            some = tokens[:, start : start + at_once]  # (B, C', T)
            rows = np.repeat(some[:, None], n_docs, axis=1).reshape(-1, length + 1)  # (B*K*C', T)
            ids = ops.convert_to_tensor(rows.astype("int32"))
            logits = self.generator.decode(cross, read.attention_mask, ids[:, :-1]).logits
            said = target_log_probs(logits[:, None], ids[:, 1:])  # (B*K*C', 1, T-1)
            parts.append(np.asarray(ops.convert_to_numpy(said)).reshape(n_questions, n_docs, -1, length))
        return np.concatenate(parts, axis=2)


def _by_question(allowed: Allowed, n_docs: int) -> Allowed:
    """A ``prefix_allowed_tokens_fn`` that is asked by question, for searches of which each has one passage."""
    return lambda search, tokens: allowed(search // n_docs, tokens)
