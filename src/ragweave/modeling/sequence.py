"""RAG-Sequence: one passage explains the whole answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from ragweave.errors import ConfigurationError
from ragweave.marginalization import (
    sequence_log_joint,
    sequence_nll,
    target_log_probs,
)
from ragweave.modeling.beam_scores import SearchScores
from ragweave.modeling.contexts import EncodedContexts
from ragweave.modeling.generation import MixtureGeneration
from ragweave.modeling.generators import DecodeOptions
from ragweave.modeling.hypotheses import Hypotheses, best_per_question, collect
from ragweave.modeling.labels import Targets
from ragweave.outputs import RagSequenceGenerateOutput

Decoding = Literal["thorough", "fast"]

# Hypotheses are scored in slices of about so many tokens, whose logits stay below so many elements (1 GiB in
# float32).
SCORED_AT_ONCE = 2**10
MAX_LOGITS = 2**28


class RagSequenceForGeneration(MixtureGeneration):
    """RAG-Sequence (Lewis et al. 2020, section 2.1): p(y|x) = sum_z p(z|x) prod_t p(y_t | x, z, y_<t).

    Arguments as for `RagModel`.

    Example:
        ```python
        model = RagSequenceForGeneration.from_pretrained("facebook/rag-sequence-nq", retriever=retriever)
        inputs = tokenizer("who holds the record in 100m freestyle", return_tensors="pt")
        answers = tokenizer.batch_decode(model.generate(**inputs, num_beams=4), skip_special_tokens=True)
        ```
    """

    def _nll(self, logits: Tensor, doc_scores: Tensor, targets: Targets, epsilon: float) -> Tensor:
        return sequence_nll(logits, doc_scores, targets.target_ids, targets.scored, epsilon)

    def _shown_logits(self, logits: Tensor, doc_scores: Tensor, do_marginalize: bool) -> Tensor:
        return logits

    @torch.no_grad()
    def generate(
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
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        decoding: Decoding = "thorough",
        **kwargs: Any,
    ) -> Tensor | RagSequenceGenerateOutput:
        """Decode answers of which one passage each explains the whole (section 2.5 of the paper).

        A search under every passage proposes hypotheses; *thorough* decoding scores each of them under all
        passages and sums, *fast* decoding takes a hypothesis as impossible under the passages that did not
        propose it. Contexts are read once for both.

        Args:
            input_ids: Question tokens, (B, S); needs a retriever unless contexts are given.
            attention_mask: Their mask, (B, S).
            context_input_ids: Contexts, (B*K, S), used instead of retrieval.
            context_attention_mask: Their mask, (B*K, S).
            doc_scores: Scaled passage scores, (B, K).
            do_deduplication: Score equal hypotheses of different passages once.
            num_return_sequences: Answers per question, best first.
            num_beams: R, beams (or samples) per passage.
            n_docs: K; from ``doc_scores`` or the configuration where left out.
            encoder_outputs: The given contexts as `RagModel.read` read them with ``reuse``.
            generation_config: How to decode.
            logits_processor: Processors beside those of the configuration.
            stopping_criteria: Criteria beside those of the configuration.
            decoding: "thorough" or "fast".
            **kwargs: As for transformers' ``generate``.

        Returns:
            Token ids, (B*num_return_sequences, T), or `RagSequenceGenerateOutput` with
            ``return_dict_in_generate``. A question with fewer distinct hypotheses than asked for gets rows of
            padding with a score of -inf at the end.

        Raises:
            ConfigurationError: ``decoding`` is neither word.
            MissingContextError: Neither contexts nor a retriever and a question are there.
            ShapeError: Contexts, mask and scores disagree.
        """
        if decoding not in ("thorough", "fast"):
            raise ConfigurationError(f"decoding is {decoding!r}; choose 'thorough' or 'fast'.")
        contexts = self.rag.contexts_for(
            input_ids, attention_mask, context_input_ids, context_attention_mask, doc_scores, n_docs
        )
        config = self._merged_generation_config(generation_config, self.generator.generation_config)
        model_kwargs = config.update(num_beams=num_beams or config.num_beams or 1, **kwargs)
        wanted = num_return_sequences or config.num_return_sequences or 1
        as_dict = bool(config.return_dict_in_generate)
        samples = wanted if config.do_sample else 1
        config.num_return_sequences = config.num_beams if config.num_beams > 1 else samples
        config.return_dict_in_generate = False
        n_docs = contexts.doc_scores.shape[1]
        if model_kwargs.get("prefix_allowed_tokens_fn") is not None:
            model_kwargs["prefix_allowed_tokens_fn"] = _per_question(
                model_kwargs["prefix_allowed_tokens_fn"], n_docs
            )
        read = encoder_outputs or self.rag.read(contexts, reuse=True)
        ends = _as_list(config.eos_token_id)
        listener = SearchScores(
            len(read),
            normalised=config.num_beams > 1,
            ends=ends,
            copy=bool(logits_processor),
        )
        sequences = self.search(
            read,
            contexts.doc_scores.new_zeros(len(read), 1),  # under each passage, a mixture of that one alone
            contexts.context_input_ids,
            generation_config=config,
            logits_processor=LogitsProcessorList([listener, *(logits_processor or [])]),
            stopping_criteria=stopping_criteria,
            **model_kwargs,
        )
        deduplicate = self.config.do_deduplication if do_deduplication is None else do_deduplication
        hypotheses = collect(
            sequences,
            contexts.doc_scores > float("-inf"),
            config.pad_token_id,
            ends,
            deduplicate=deduplicate,
        )
        proposed = listener.log_probs(sequences)
        scores = self._score(read, contexts.doc_scores, hypotheses, proposed, decoding)
        best, best_scores = best_per_question(hypotheses, scores, wanted, config.pad_token_id)
        if not as_dict:
            return best
        return RagSequenceGenerateOutput(sequences=best, sequences_scores=best_scores, **contexts.shown())

    def _get_logits_processor(self, *args: Any, **kwargs: Any) -> LogitsProcessorList:
        """Transformers' processors; what listens to the search goes before all that change its scores."""
        processors = super()._get_logits_processor(*args, **kwargs)
        return LogitsProcessorList(sorted(processors, key=lambda own: not isinstance(own, SearchScores)))

    def _score(
        self,
        read: EncodedContexts,
        doc_scores: Tensor,
        hypotheses: Hypotheses,
        proposed: Tensor,
        decoding: Decoding,
    ) -> Tensor:
        """Log p(y|x) of C hypotheses per question, (B, C).

        Args:
            read: B*K contexts that were read.
            doc_scores: Scaled passage scores, (B, K).
            hypotheses: The hypotheses.
            proposed: What the searches said of the tokens of their R proposals, (B*K, R, T-1); NaN where nothing.
            decoding: "thorough" or "fast".
        """
        scored = self._scored_tokens(hypotheses)[:, None]  # (B, 1, C, T-1)
        wanted = hypotheses.exists[:, None] & (doc_scores > float("-inf"))[..., None]  # (B, K, C)
        if decoding == "fast":
            wanted = wanted & (hypotheses.proposal >= 0)
        log_probs = hypotheses.of_proposals(proposed)  # (B, K, C, T-1)
        missing = wanted & (log_probs.isnan() & scored).any(-1)
        if missing.any():
            scored_here = self._log_probs(read, hypotheses, missing, scored.expand_as(log_probs))
            log_probs = torch.where(missing[..., None], scored_here, log_probs)
        log_probs = log_probs.masked_fill(~scored, 0.0).transpose(1, 2)  # (B, C, K, T-1)
        joint = sequence_log_joint(
            log_probs.flatten(0, 1),
            scored[:, 0].flatten(0, 1),
            doc_scores.repeat_interleave(log_probs.shape[1], dim=0),
        ).view(log_probs.shape[:3])  # (B, C, K)
        return joint.masked_fill(~wanted.transpose(1, 2), float("-inf")).logsumexp(-1)

    def _log_probs(
        self, read: EncodedContexts, hypotheses: Hypotheses, missing: Tensor, scored: Tensor
    ) -> Tensor:
        """Log-probabilities of the tokens of some hypotheses under some passages, (B, K, C, T-1).

        Args:
            read: B*K contexts that were read.
            hypotheses: The hypotheses.
            missing: Which of them to score under which passage, bool, (B, K, C).
            scored: Which tokens after the start token count, bool, (B, K, C, T-1).
        """
        device, vocabulary = missing.device, self._vocabulary_size()
        found = torch.zeros(scored.shape, dtype=torch.float32, device=device)
        lengths = hypotheses.lengths[:, None].expand_as(missing).masked_fill(~missing, 0)
        # The longest first, so that slices of the work are of like length.
        order = lengths.argsort(dim=-1, descending=True, stable=True)
        steps = hypotheses.token_ids.shape[-1] - 1
        most = max(1, SCORED_AT_ONCE // (len(read) * steps))
        most = min(most, max(1, MAX_LOGITS // (len(read) * steps * vocabulary)))
        question = torch.arange(missing.shape[0], device=device)[:, None, None]
        passage = torch.arange(missing.shape[1], device=device)[None, :, None]
        for some in order[..., : int(missing.sum(-1).max())].split(most, dim=-1):  # (B, K, C')
            longest = int(lengths.gather(-1, some).max())
            tokens = hypotheses.token_ids[question, some, :longest]  # (B, K, C', T')
            counted = scored[question, passage, some, : longest - 1] & missing.gather(-1, some)[..., None]
            flat = tokens.flatten(0, 2)
            positions = counted.flatten(0, 2)
            logits = self.rag.adapter.decode(
                read, flat[:, :-1], options=DecodeOptions(logits_at=positions)
            ).logits  # (1, M, V)
            log_probs = target_log_probs(logits[:, None], flat[:, 1:][positions][None])
            part = torch.zeros_like(counted, dtype=torch.float32)
            part[counted] = log_probs.flatten().float()
            found[question, passage, some, : longest - 1] = part
        return found

    def _scored_tokens(self, hypotheses: Hypotheses) -> Tensor:
        """Which tokens after the start token count, (B, C, T-1).

        A BOS token that begins all hypotheses of a question says nothing and is left out, as in transformers.
        """
        length = hypotheses.token_ids.shape[-1]
        positions = torch.arange(1, length, device=hypotheses.token_ids.device)
        scored = positions < hypotheses.lengths[..., None]  # (B, C, T-1)
        bos = self.rag.bos_token_id
        if bos is not None:
            begins = (hypotheses.token_ids[..., 1] == bos) | ~hypotheses.exists  # (B, C)
            scored[..., 0] &= ~begins.all(1, keepdim=True)
        return scored


def _per_question(
    allowed: Callable[[int, Tensor], list[int]], n_docs: int
) -> Callable[[int, Tensor], list[int]]:
    """A ``prefix_allowed_tokens_fn`` that is asked by question, for a search whose rows are (B*K)."""
    return lambda row, tokens: allowed(row // n_docs, tokens)


def _as_list(tokens: int | list[int] | None) -> list[int]:
    """End tokens, however a configuration names them."""
    if tokens is None:
        return []
    return list(tokens) if isinstance(tokens, (list, tuple)) else [tokens]
