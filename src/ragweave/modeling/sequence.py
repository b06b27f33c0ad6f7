"""RAG-Sequence: one passage explains the whole answer.

A beam search under every passage proposes hypotheses (`Hypotheses`). The search has computed most of the
log-probabilities that they are scored with, and `SearchScores` records them; the model computes the missing ones.

Notation used for tensor shapes
    B questions, K passages per question, R beams (or samples) per passage, C distinct hypotheses per question,
    T tokens including the start token, V vocabulary. N searches run side by side, which are the B*K contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteriaList

from ragweave.errors import ConfigurationError
from ragweave.marginalization import sequence_log_joint, sequence_nll, target_log_probs
from ragweave.modeling.contexts import EncodedContexts
from ragweave.modeling.generation import RagForGeneration
from ragweave.modeling.generators import DecodeOptions
from ragweave.modeling.parts import Targets, as_list, resolve_flag
from ragweave.modeling.proposals import Proposals, collect_proposals
from ragweave.outputs import RagSequenceGenerateOutput

Decoding = Literal["thorough", "fast"]

# Hypotheses are scored in slices of about this many tokens, whose logits have at most this many elements (1 GiB in
# float32).
SLICE_TOKENS = 2**10
MAX_LOGITS = 2**28


class RagSequenceForGeneration(RagForGeneration):
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

    def _output_logits(self, logits: Tensor, *_: object) -> Tensor:
        return logits

    @staticmethod
    def _cat_and_pad(tensors: Sequence[Tensor], pad_token_id: int) -> Tensor:
        """Rows of several tensors, (M, T) each, in one, padded to the longest T; transformers' name."""
        longest = max(tensor.shape[1] for tensor in tensors)
        return torch.cat(
            [pad(tensor, (0, longest - tensor.shape[1]), value=pad_token_id) for tensor in tensors]
        )

    @torch.no_grad()
    def generate(  # noqa: D417  # RagTokenForGeneration.generate documents the other arguments
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
        """Generate answers, each explained by one passage (section 2.5 of the paper).

        A beam search under every passage proposes hypotheses. *Thorough* decoding scores each of them under all
        passages and sums; *fast* decoding treats a hypothesis as impossible under passages that did not propose it.
        Contexts are encoded once for both. Arguments as for `RagTokenForGeneration.generate`, and:

        Args:
            do_deduplication: Score equal hypotheses of different passages once.
            num_return_sequences: Answers per question, best first.
            num_beams: R, beams (or samples) per passage.
            decoding: "thorough" or "fast".

        Returns:
            Token ids, (B*num_return_sequences, T), or `RagSequenceGenerateOutput` with ``return_dict_in_generate``.
            If a question has fewer distinct hypotheses, its last rows are padding with a score of -inf.

        Raises:
            ConfigurationError: ``decoding`` is unknown.
            MissingContextError: There are neither contexts nor a retriever and a question.
            ShapeError: Contexts, mask and scores disagree.
        """
        if decoding not in ("thorough", "fast"):
            raise ConfigurationError(f"decoding is {decoding!r}; choose 'thorough' or 'fast'.")
        contexts = self.rag.prepare_contexts(
            input_ids, attention_mask, context_input_ids, context_attention_mask, doc_scores, n_docs
        )
        doc_scores, n_docs = contexts.doc_scores, contexts.doc_scores.shape[1]
        config = self._merged_generation_config(generation_config, self.generator.generation_config)
        model_kwargs = config.update(num_beams=num_beams or config.num_beams or 1, **kwargs)
        n_answers = num_return_sequences or config.num_return_sequences or 1
        return_dict = config.return_dict_in_generate
        samples = n_answers if config.do_sample else 1
        config.num_return_sequences = config.num_beams if config.num_beams > 1 else samples
        config.return_dict_in_generate = False
        allowed = model_kwargs.get("prefix_allowed_tokens_fn")
        if allowed is not None:  # it takes the number of a question; the search has B*K rows
            model_kwargs["prefix_allowed_tokens_fn"] = lambda row, ids: allowed(row // n_docs, ids)
        encoded = encoder_outputs or self.rag.encode_contexts(contexts, reuse=True)
        ends = as_list(config.eos_token_id)
        token_scores = self._token_scores(config, model_kwargs)
        beam_scores = SearchScores(
            len(encoded), ends, normalised=config.num_beams > 1, copy=bool(logits_processor)
        )
        recorder: Any = [beam_scores] if token_scores is None else []
        sequences = self._generate(
            encoded,
            doc_scores.new_zeros(len(encoded), 1),  # each passage is a mixture of one
            contexts.context_input_ids,
            generation_config=config,
            token_scores=token_scores,
            logits_processor=LogitsProcessorList([*recorder, *(logits_processor or [])]),
            stopping_criteria=stopping_criteria,
            **model_kwargs,
        )
        hypotheses = Hypotheses.collect(
            sequences,
            doc_scores > float("-inf"),
            config.pad_token_id,
            ends,
            deduplicate=resolve_flag(do_deduplication, self.config.do_deduplication),
        )
        log_probs = None
        if decoding == "thorough" and self._overrides("get_nll"):
            scores = self._score_by_nll(encoded, doc_scores, hypotheses)
        else:
            recorded = (token_scores or beam_scores).log_probs(sequences)
            scores, log_probs = self._score(encoded, doc_scores, hypotheses, recorded, decoding)
        best, best_scores, numbers = hypotheses.best(scores, n_answers, config.pad_token_id)
        if not return_dict:
            return best
        if log_probs is not None:
            question = torch.arange(len(numbers), device=numbers.device)[:, None]
            log_probs = log_probs[question, numbers].flatten(0, 1)[..., : best.shape[1] - 1]
        return RagSequenceGenerateOutput(
            sequences=best,
            sequences_scores=best_scores,
            passage_log_probs=log_probs,
            **contexts.for_generate(),
        )

    def _get_logits_processor(self, *args: Any, **kwargs: Any) -> LogitsProcessorList:
        """Transformers' processors, with `SearchScores` in front.

        The method is private. ``generate(logits_processor=...)``, the public way, applies processors after those of
        the configuration, which change the scores. test_search_scores.py fails if transformers drops it, and
        ``benchmarks/sequence_decoding.py`` measures what recorded scores save.
        """
        processors = super()._get_logits_processor(*args, **kwargs)
        return LogitsProcessorList(sorted(processors, key=lambda each: not isinstance(each, SearchScores)))

    def _score(
        self,
        encoded: EncodedContexts,
        doc_scores: Tensor,
        hypotheses: Hypotheses,
        recorded: Tensor,
        decoding: Decoding,
    ) -> tuple[Tensor, Tensor]:
        """Log p(y|x) of C hypotheses per question, (B, C), and of their tokens, (B, C, K, T-1); NaN if not computed.

        Args:
            encoded: B*K contexts.
            doc_scores: Scaled passage scores, (B, K).
            hypotheses: The hypotheses.
            recorded: Log-probabilities of the proposals' tokens in the searches, (B*K, R, T-1); NaN if unknown.
            decoding: "thorough" or "fast".
        """
        scored = self._scored_tokens(hypotheses)[:, None]  # (B, 1, C, T-1)
        possible = hypotheses.exists[:, None] & (doc_scores > float("-inf"))[..., None]  # (B, K, C)
        if decoding == "fast":
            possible = possible & (hypotheses.proposal >= 0)
        log_probs = hypotheses.of_proposals(recorded)  # (B, K, C, T-1)
        missing = possible & (log_probs.isnan() & scored).any(-1)
        if missing.any():
            computed = self._log_probs(encoded, hypotheses, missing, scored.expand_as(log_probs))
            log_probs = torch.where(missing[..., None], computed, log_probs)
        log_probs = log_probs.transpose(1, 2)  # (B, C, K, T-1)
        joint = sequence_log_joint(
            log_probs.flatten(0, 1),  # (B*C, K, T-1)
            scored[:, 0].flatten(0, 1),  # (B*C, T-1)
            doc_scores.repeat_interleave(log_probs.shape[1], dim=0),  # (B*C, K)
        ).view(log_probs.shape[:3])  # (B, C, K)
        return joint.masked_fill(~possible.transpose(1, 2), float("-inf")).logsumexp(-1), log_probs

    def _score_by_nll(self, encoded: EncodedContexts, doc_scores: Tensor, hypotheses: Hypotheses) -> Tensor:
        """Scores of C hypotheses per question, (B, C), by the ``get_nll`` of a subclass."""
        n_docs, tokens = doc_scores.shape[1], hypotheses.token_ids  # (B, C, T)
        rows = tokens[:, None].expand(-1, n_docs, -1, -1).flatten(0, 2)  # (B*K*C, T)
        decoded = self.rag.wrapped_generator.decode(encoded, rows, options=DecodeOptions())
        logits = decoded["logits"].view(len(tokens), n_docs, *tokens.shape[1:], -1).transpose(1, 2)
        losses = [
            self.get_nll(
                of_question.flatten(0, 1),  # (C*K, T, V)
                scores.expand(tokens.shape[1], -1),
                hypothesis_ids,
                exclude_bos_score=True,
                n_docs=n_docs,
            )
            for of_question, scores, hypothesis_ids in zip(logits, doc_scores, tokens, strict=True)
        ]
        return (-torch.stack(losses)).masked_fill(~hypotheses.exists, float("-inf"))

    def _log_probs(
        self, encoded: EncodedContexts, hypotheses: Hypotheses, missing: Tensor, scored: Tensor
    ) -> Tensor:
        """Log-probabilities of the tokens of some hypotheses under some passages, (B, K, C, T-1); NaN for others.

        Args:
            encoded: B*K contexts.
            hypotheses: The hypotheses.
            missing: Which of them to score under which passage, bool, (B, K, C).
            scored: Which tokens after the start token count, bool, (B, K, C, T-1).
        """
        device = missing.device
        result = torch.full(scored.shape, float("nan"), dtype=torch.float32, device=device)
        lengths = hypotheses.lengths[:, None].expand_as(missing).masked_fill(~missing, 0)  # (B, K, C)
        # The longest first, so that slices have little padding.
        order = lengths.argsort(dim=-1, descending=True, stable=True)
        steps = hypotheses.token_ids.shape[-1] - 1
        tokens_per_slice = min(SLICE_TOKENS, MAX_LOGITS // self._vocabulary_size())
        slice_size = max(1, tokens_per_slice // (len(encoded) * steps))
        question = torch.arange(missing.shape[0], device=device)[:, None, None]  # (B, 1, 1)
        passage = torch.arange(missing.shape[1], device=device)[None, :, None]  # (1, K, 1)
        for chosen in order[..., : int(missing.sum(-1).max())].split(slice_size, dim=-1):  # (B, K, C')
            longest = int(lengths.gather(-1, chosen).max())
            tokens = hypotheses.token_ids[question, chosen, :longest]  # (B, K, C', T')
            needed = scored[question, passage, chosen, : longest - 1] & missing.gather(-1, chosen)[..., None]
            flat, positions = tokens.flatten(0, 2), needed.flatten(0, 2)  # (B*K*C', T'), (B*K*C', T'-1)
            logits = self.rag.wrapped_generator.decode(
                encoded, flat[:, :-1], options=DecodeOptions(logits_at=positions)
            )["logits"]  # (1, M, V)
            log_probs = target_log_probs(logits[:, None], flat[:, 1:][positions][None])  # (1, 1, M)
            part = torch.full_like(needed, float("nan"), dtype=torch.float32)
            part[needed] = log_probs.flatten().float()
            result[question, passage, chosen, : longest - 1] = part
        return result

    def _scored_tokens(self, hypotheses: Hypotheses) -> Tensor:
        """Which tokens after the start token count, (B, C, T-1).

        A BOS token that begins all hypotheses of a question adds no information and is left out, as in transformers.
        """
        length = hypotheses.token_ids.shape[-1]
        positions = torch.arange(1, length, device=hypotheses.token_ids.device)
        scored = positions < hypotheses.lengths[..., None]  # (B, C, T-1)
        bos = self.rag.special_tokens.bos
        if bos is not None:
            begins = (hypotheses.token_ids[..., 1] == bos) | ~hypotheses.exists  # (B, C)
            scored[..., 0] &= ~begins.all(1, keepdim=True)
        return scored


class Hypotheses(Proposals[Tensor]):
    """Hypotheses of B questions as tensors; see `Proposals`."""

    @classmethod
    def collect(
        cls,
        sequences: Tensor,
        has_passage: Tensor,
        pad_token_id: int,
        ends: Sequence[int],
        *,
        deduplicate: bool,
    ) -> Hypotheses:
        """Collect the hypotheses of each question in the order of proposal.

        Args:
            sequences: Token ids, (B*K*R, T).
            has_passage: Which passages exist, bool, (B, K); the others propose nothing.
            pad_token_id: The token that pads sequences.
            ends: The tokens that end them.
            deduplicate: Keep equal hypotheses of a question once.
        """
        rows = sequences.view(*has_passage.shape, -1, sequences.shape[-1])  # (B, K, R, T)
        proposals = collect_proposals(
            rows.tolist(), has_passage.tolist(), pad_token_id, ends, deduplicate=deduplicate
        )
        return cls(*(torch.from_numpy(array).to(sequences.device) for array in proposals))

    @property
    def exists(self) -> Tensor:
        """Which hypotheses are not padding, bool, (B, C)."""
        return self.lengths > 0

    def of_proposals(self, values: Tensor) -> Tensor:
        """Turn values of every passage's proposals, (B*K, R, T-1), into values of hypotheses, (B, K, C, T-1).

        They are NaN for hypotheses that a passage did not propose.
        """
        n_questions, n_docs = self.proposal.shape[:2]
        index = self.proposal.clamp(min=0)[..., None].expand(-1, -1, -1, values.shape[-1])
        grouped = values.view(n_questions, n_docs, -1, values.shape[-1])  # (B, K, R, T-1)
        return grouped.gather(2, index).masked_fill(self.proposal[..., None] < 0, float("nan"))

    def best(self, scores: Tensor, count: int, pad_token_id: int) -> tuple[Tensor, Tensor, Tensor]:
        """The best hypotheses of each question.

        Args:
            scores: Log p(y|x), (B, C); -inf for padding.
            count: How many per question.
            pad_token_id: The token that pads rows.

        Returns:
            Token ids, (B*count, T), best first, with T of the longest, their scores, (B*count,), and their numbers,
            (B, count). Rows for missing hypotheses are padding with a score of -inf and the number of another one.
        """
        missing = max(count - scores.shape[1], 0)
        best = pad(scores, (0, missing), value=float("-inf")).topk(count, dim=1)
        lengths = pad(self.lengths, (0, missing)).gather(1, best.indices)  # (B, count)
        token_ids = pad(self.token_ids, (0, 0, 0, missing), value=pad_token_id)
        rows = token_ids.gather(1, best.indices[..., None].expand(-1, -1, token_ids.shape[-1]))
        numbers = best.indices.clamp(max=scores.shape[1] - 1)
        return rows.flatten(0, 1)[:, : int(lengths.max())], best.values.flatten(), numbers


@dataclass(frozen=True)
class _Step:
    """The beams when they have t tokens.

    Attributes:
        parent: The beam with t-1 tokens that each continues, (N, R); the first of several equal ones, -1 for none.
        token: Its last token, (N, R).
        log_prob: The log-probability of that token, (N, R).
        end_log_probs: The log-probability of each end token as the next token, (N, R, number of end tokens).
    """

    parent: Tensor
    token: Tensor
    log_prob: Tensor
    end_log_probs: Tensor


class SearchScores(LogitsProcessor):
    """Records the log-probabilities of tokens in a search of transformers; changes nothing.

    It must be the first processor, before others change the scores.

    Args:
        n_searches: N.
        ends: The end tokens.
        normalised: Whether the search passes log-probabilities (beam search does), not logits.
        copy: Whether later processors may write into the scores.
    """

    def __init__(self, n_searches: int, ends: Sequence[int], *, normalised: bool, copy: bool) -> None:
        self._n_searches = n_searches
        self._ends = list(ends)
        self._normalised = normalised
        self._copy = copy
        self._steps: list[_Step] = []
        self._first_length = 0
        # Of the last step: (N, R, t) and (N, R, V).
        self._ids = self._log_probs = torch.empty(0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Record the beams, (N*R, t), and the scores of their next tokens, (N*R, V)."""
        ids = input_ids.view(self._n_searches, -1, input_ids.shape[-1]).clone()  # (N, R, t)
        if not self._steps or ids.shape[-1] != self._ids.shape[-1] + 1:
            self._steps, self._first_length = [], ids.shape[-1]
            parent = torch.zeros_like(ids[..., 0])
            log_prob = scores.new_full(parent.shape, float("nan"))
        else:
            same = (ids[:, :, None, :-1] == self._ids[:, None]).all(-1)  # (N, R, R)
            parent = same.to(torch.uint8).argmax(-1)
            log_prob = self._log_prob(parent, ids[..., -1])
            parent = parent.masked_fill(~same.any(-1), -1)
        log_probs = scores.view(*parent.shape, -1)  # (N, R, V)
        if not self._normalised:
            log_probs = log_probs.log_softmax(-1)
        elif self._copy:
            log_probs = log_probs.clone()
        self._ids, self._log_probs = ids, log_probs
        self._steps.append(_Step(parent, ids[..., -1], log_prob, log_probs[..., self._ends]))
        return scores

    def log_probs(self, sequences: Tensor) -> Tensor:
        """Log-probabilities of the tokens of hypotheses that the search returned.

        Args:
            sequences: Token ids, (N*S, T), S per search.

        Returns:
            Log-probabilities of all tokens but the first, (N, S, T-1); NaN if unknown: for tokens that the search
            started from, and after the end.
        """
        tokens = sequences.view(self._n_searches, -1, sequences.shape[-1])  # (N, S, T)
        result = torch.full_like(tokens[..., 1:], float("nan"), dtype=torch.float32)  # (N, S, T-1)
        # The beam that a sequence is part of so far, (N, S); -1 for none.
        beam = torch.zeros_like(tokens[..., 0])
        positions = range(self._first_length, tokens.shape[-1])
        for position, step, following in zip(positions, self._steps, [*self._steps[1:], None], strict=False):
            token, index = tokens[..., position], beam.clamp(min=0)
            if following is None:
                log_prob, next_beam = self._log_prob(index, token), torch.full_like(beam, -1)
            else:
                log_prob = torch.full_like(result[..., 0], float("nan"))
                for end, of_end in zip(self._ends, step.end_log_probs.unbind(-1), strict=True):
                    log_prob = torch.where(token == end, of_end.gather(1, index), log_prob)
                matches = (following.parent[:, None] == beam[..., None]) & (
                    following.token[:, None] == token[..., None]
                )  # (N, S, R)
                continued, next_beam = matches.any(-1), matches.to(torch.uint8).argmax(-1)
                log_prob = torch.where(continued, following.log_prob.gather(1, next_beam), log_prob)
                next_beam = next_beam.masked_fill(~continued, -1)
            result[..., position - 1] = log_prob.masked_fill(beam < 0, float("nan"))
            beam = next_beam
        return result

    def _log_prob(self, beam: Tensor, token: Tensor) -> Tensor:
        """Log-probability of a token after a beam of the last step, both (N, any)."""
        vocabulary = self._log_probs.shape[-1]
        return self._log_probs.flatten(1).gather(1, beam * vocabulary + token)
