"""Where answers came from: posteriors over passages per answer and per token, and the words that support each token.

Notation used for tensor shapes: B questions, K passages per question, T answer tokens.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from os.path import commonprefix
from typing import Any

import torch
from torch import Tensor

from ragweave.marginalization import (
    answer_posterior,
    prefix_posteriors,
    scored_positions,
    sequence_log_likelihood,
    sequence_posterior,
    target_log_probs,
    token_log_likelihood,
    token_posteriors,
)
from ragweave.modeling.contexts import EncodedContexts
from ragweave.modeling.generation import RagForGeneration
from ragweave.modeling.generators import DecodeOptions
from ragweave.modeling.token import RagTokenForGeneration
from ragweave.provenance.answers import Answer, AnswerToken, Field, RetrievedPassage, Support
from ragweave.types import ScoredPassage


@dataclass(frozen=True)
class Provenance:
    """How much each passage contributed to B answers."""

    log_likelihood: Tensor  # log p(y|x) under the model's formulation, (B,)
    # P(z | x, y), (B, K); rows sum to one. RAG-Sequence: given the whole answer. RAG-Token, which draws a passage
    # for every token: the mean of the tokens' posteriors.
    posterior: Tensor
    token_posteriors: Tensor  # p(z | x, y_<=t), (B, K, T)
    scored: Tensor  # which tokens belong to the answer, bool, (B, T)
    # Log p(null|x), that the passages do not answer, (B,); ``None`` without a null answer.
    null_log_likelihood: Tensor | None = None
    null_log_probs: Tensor | None = None  # log p(null | x, z), (B, K), likewise


@torch.no_grad()
def explain(
    model: RagForGeneration,
    contexts: EncodedContexts,
    doc_scores: Tensor,
    sequences: Tensor,
    null_ids: Sequence[int] | None = None,
    log_probs: Tensor | None = None,
) -> Provenance:
    """Compute where B answers came from.

    Needs one pass of the decoder over the contexts they were generated from, unless decoding has computed the same.
    The null answer is a hypothesis like any other: p(null|x) sums over the passages as p(y|x) does.

    Args:
        model: The model that answered.
        contexts: B*K encoded contexts.
        doc_scores: Scaled passage scores, (B, K).
        sequences: The answers as `generate` returned them, (B, 1+T), start token first.
        null_ids: Tokens of the answer that says that a passage does not answer; see `RagConfig.null_answer`.
        log_probs: ``passage_log_probs`` of `generate`, computed during decoding, (B, K, T).
    """
    n_docs = doc_scores.shape[1]
    scored = _scored(model, sequences[:, 1:])
    if log_probs is not None:  # the values at missing passages and padding do not matter
        log_probs = log_probs.masked_fill(~scored[:, None] | (doc_scores == float("-inf"))[..., None], 0.0)
    if log_probs is None or log_probs.isnan().any():
        log_probs = _log_probs(model, contexts, sequences, scored, n_docs)
    per_token = token_posteriors(log_probs, doc_scores)
    is_token = isinstance(model, RagTokenForGeneration)
    likelihood = token_log_likelihood if is_token else sequence_log_likelihood
    if is_token:
        posterior = answer_posterior(per_token, scored)
    else:
        posterior = sequence_posterior(log_probs, scored, doc_scores)
        per_token = prefix_posteriors(log_probs, scored, doc_scores)
    provenance = Provenance(likelihood(log_probs, scored, doc_scores), posterior, per_token, scored)
    if null_ids is None:
        return provenance
    null = torch.tensor(null_ids, device=sequences.device).expand(len(sequences), -1)
    every = torch.ones_like(null, dtype=torch.bool)
    log_probs = _log_probs(model, contexts, torch.cat([sequences[:, :1], null], dim=1), every, n_docs)
    return replace(
        provenance,
        null_log_likelihood=likelihood(log_probs, every, doc_scores),
        null_log_probs=log_probs.sum(-1),
    )


def _log_probs(
    model: RagForGeneration, contexts: EncodedContexts, sequences: Tensor, scored: Tensor, n_docs: int
) -> Tensor:
    """Log p(y_t | x, z, y_<t) of B answers under their K passages, (B, K, T); 0 on padding."""
    rows = sequences.repeat_interleave(n_docs, dim=0)  # (B*K, 1+T)
    # Answers are padded to the longest. Logits of padding over a large vocabulary would be wasted work.
    positions = scored.repeat_interleave(n_docs, dim=0)  # (B*K, T)
    logits = model.rag.wrapped_generator.decode(
        contexts, rows[:, :-1], options=DecodeOptions(logits_at=positions)
    )["logits"]  # (1, M, V)
    values = target_log_probs(logits[:, None], rows[:, 1:][positions][None])  # (1, 1, M)
    log_probs = values.new_zeros(positions.shape)
    log_probs[positions] = values.flatten()
    return log_probs.view(len(sequences), n_docs, -1)


def _scored(model: RagForGeneration, targets: Tensor) -> Tensor:
    """Which generated tokens belong to the answers, bool, (B, T): all up to the first end token."""
    scored = scored_positions(targets, model.rag.special_tokens.pad, model.rag.special_tokens.eos)
    # Models without a padding token pad with another one, and some models have several end tokens.
    if not model.end_token_ids:
        return scored
    is_end = torch.isin(targets, torch.tensor(model.end_token_ids, device=targets.device)).long()
    return scored & (is_end.cumsum(-1) - is_end == 0)


_WORD = re.compile(r"\w+")


def assemble(
    questions: Sequence[str],
    passages: Sequence[Sequence[ScoredPassage | None]],
    sequences: Tensor,
    provenance: Provenance,
    tokenizer: Any,
) -> list[Answer]:
    """Make B answers from the output of ``generate``, (B, 1+T), start token first.

    Each answer has K passages, ``None`` for missing ones. The tokenizer is the generator's.
    """
    texts = tokenizer.batch_decode(sequences[:, 1:], skip_special_tokens=True)
    answers = []
    for b, (question, text) in enumerate(zip(questions, texts, strict=True)):
        posterior = provenance.posterior[b].tolist()
        ranked = sorted(
            ((k, passage) for k, passage in enumerate(passages[b]) if passage is not None),
            key=lambda pair: -posterior[pair[0]],
        )
        order = [k for k, _ in ranked]
        null = None if provenance.null_log_probs is None else provenance.null_log_probs[b].exp().tolist()
        retrieved = tuple(
            RetrievedPassage.of(passage, posterior[k], None if null is None else null[k])
            for k, passage in ranked
        )
        scored = provenance.scored[b]
        tokens = answer_tokens(
            text.strip(),
            token_texts(sequences[b, 1:][scored].tolist(), text.strip(), tokenizer),
            provenance.token_posteriors[b][order][:, scored].T.tolist(),
            retrieved,
        )
        likelihood = float(provenance.log_likelihood[b])
        nothing = provenance.null_log_likelihood
        null_score = None if nothing is None else float(nothing[b])
        answers.append(Answer(question, text.strip(), likelihood, retrieved, tokens, null_score=null_score))
    return answers


def token_texts(token_ids: Sequence[int], text: str, tokenizer: Any) -> list[str]:
    """Split a decoded text, without special tokens and surrounding white space, into the texts of its T tokens.

    Returns:
        T texts that make up ``text``. A character that several tokens spell belongs to the last of them.
    """
    prefixes = [token_ids[:count] for count in range(1, len(token_ids))]
    decoded = tokenizer.batch_decode(prefixes, skip_special_tokens=True) if prefixes else []
    ends = [0]
    for prefix in decoded:
        # A prefix that ends inside a character decodes to different last characters than the text.
        ends.append(max(ends[-1], len(commonprefix([prefix.lstrip(), text]))))  # noqa: RUF071 (characters)
    ends.append(len(text))
    return [text[start:end] for start, end in pairwise(ends)][: len(token_ids)]


def answer_tokens(
    answer: str,
    texts: Sequence[str],
    posteriors: Sequence[Sequence[float]],
    passages: Sequence[RetrievedPassage],
) -> tuple[AnswerToken, ...]:
    """Tokens from their T texts, their (T, K) posteriors, and the words that support them."""
    runs: dict[int, dict[Field, list[Run | None]]] = {}
    tokens = []
    for text, end, posterior in zip(texts, accumulate(map(len, texts)), posteriors, strict=True):
        token = AnswerToken(text, tuple(posterior), None)
        best = token.passage
        if best is not None and text:
            if best not in runs:
                passage = passages[best]
                runs[best] = {
                    "text": supporting_runs(answer, passage.text),
                    "title": supporting_runs(answer, passage.title),
                }
            token = AnswerToken(text, token.posteriors, _support(best, runs[best], end - len(text), end))
        tokens.append(token)
    return tuple(tokens)


def _support(passage: int, runs: dict[Field, list[Run | None]], start: int, end: int) -> Support | None:
    """The longest run of words around the characters of a token; ties go to the text, not the title."""
    candidates = [(run, field) for field, row in runs.items() for run in row[start:end] if run is not None]
    if not candidates:
        return None
    run, field = max(candidates, key=lambda candidate: candidate[0].words)
    return Support(passage, field, run.start, run.end)


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive words of a text."""

    words: int  # how many
    start: int  # where they begin, in characters
    end: int  # where they end


@dataclass(frozen=True, slots=True)
class _Word:
    form: str
    start: int
    end: int


def supporting_runs(answer: str, text: str) -> list[Run | None]:
    """Find the words that an answer shares with a passage's text or title, ignoring case and punctuation.

    Returns:
        For every character of the answer, the longest run of the answer's words that includes this character's word
        and is in the text (the first of several); ``None`` between words, and for words that the text does not have.
    """
    words = _words(answer)
    by_character: list[Run | None] = [None] * len(answer)
    for word, run in zip(words, _longest_runs(words, _words(text)), strict=True):
        by_character[word.start : word.end] = [run] * (word.end - word.start)
    return by_character


def _words(text: str) -> list[_Word]:
    return [_Word(word.group().casefold(), *word.span()) for word in _WORD.finditer(text)]


def _longest_runs(answer: Sequence[_Word], text: Sequence[_Word]) -> list[Run | None]:
    """For every word of the answer, the longest run around it that is in the text."""
    positions = defaultdict(list)
    for position, word in enumerate(text):
        positions[word.form].append(position)
    best: list[Run | None] = [None] * len(answer)
    for first, word in enumerate(answer):
        for position in positions.get(word.form, ()):
            if first and position and answer[first - 1].form == text[position - 1].form:
                continue  # inside a run that was found from its beginning
            length = 1
            while (
                first + length < len(answer)
                and position + length < len(text)
                and answer[first + length].form == text[position + length].form
            ):
                length += 1
            run = Run(length, text[position].start, text[position + length - 1].end)
            for number in range(first, first + length):
                known = best[number]
                if known is None or (-run.words, run.start) < (-known.words, known.start):
                    best[number] = run
    return best
