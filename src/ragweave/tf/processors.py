"""What changes the scores of the next token, by the rules of transformers' processors of the same names.

Notation used for array shapes
    N rows (beams of all searches), t tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ragweave.tf.options import Allowed, Ids, Processor, Scores, SearchOptions

_NEVER = np.float32(-np.inf)


def processors(
    options: SearchOptions, allowed: Allowed | None = None, rows: int = 1, own: Sequence[Processor] = ()
) -> list[Processor]:
    """What changes the scores of a search, in the order of transformers.

    Args:
        options: The options.
        allowed: Says which tokens may follow.
        rows: How many beams each search has.
        own: The caller's own, which come last.
    """
    return [*_of(options, allowed, rows), *own]


def warped(scores: Scores, options: SearchOptions) -> Scores:
    """Scores to draw from, (N, V): temperature, then the likeliest ``top_k``, then those with the mass ``top_p``."""
    scores = scores / np.float32(options.temperature)
    if 0 < options.top_k < scores.shape[1]:
        least = np.partition(scores, -options.top_k, axis=1)[:, -options.top_k, None]
        scores = np.where(scores < least, _NEVER, scores)
    if options.top_p < 1.0:
        order = np.argsort(scores, axis=1, kind="stable")
        rising = np.take_along_axis(scores, order, axis=1)
        out = np.cumsum(np.exp(rising - _log_sum(rising)), axis=1) <= 1.0 - options.top_p
        out[:, -1] = False  # the likeliest always stays
        drop = np.zeros_like(out)
        np.put_along_axis(drop, order, out, axis=1)
        scores = np.where(drop, _NEVER, scores)
    return scores


def log_softmax(scores: Scores) -> Scores:
    """Log-probabilities of scores, (N, V)."""
    shifted: Scores = scores - _log_sum(scores)
    return shifted


def _log_sum(scores: Scores) -> Scores:
    highest = scores.max(axis=1, keepdims=True)
    total: Scores = highest + np.log(np.exp(scores - highest).sum(axis=1, keepdims=True))
    return total


def _of(options: SearchOptions, allowed: Allowed | None, rows: int) -> Iterator[Processor]:
    if options.repetition_penalty != 1.0:
        yield lambda ids, scores: _repetition(ids, scores, options.repetition_penalty)
    if options.no_repeat_ngram_size > 0:
        yield lambda ids, scores: _no_repeat(ids, scores, options.no_repeat_ngram_size)
    if options.min_length > 0 and options.ends:
        yield lambda ids, scores: _not_yet(ids, scores, options)
    if allowed is not None:
        yield lambda ids, scores: _allowed(ids, scores, allowed, rows)
    if (first := options.forced_bos) is not None:
        yield lambda ids, scores: _only(scores, [first]) if ids.shape[1] == 1 else scores
    if options.forced_eos:
        last = options.max_length - 1
        yield lambda ids, scores: _only(scores, options.forced_eos) if ids.shape[1] == last else scores


def _repetition(ids: Ids, scores: Scores, penalty: float) -> Scores:
    said = np.take_along_axis(scores, ids, axis=1)
    scores = scores.copy()
    np.put_along_axis(scores, ids, np.where(said < 0, said * penalty, said / penalty), axis=1)
    return scores


def _no_repeat(ids: Ids, scores: Scores, size: int) -> Scores:
    if ids.shape[1] + 1 < size:
        return scores
    scores = scores.copy()
    for row, tokens in enumerate(ids.tolist()):
        end = tuple(tokens[len(tokens) - size + 1 :])
        for place in range(len(tokens) - size + 1):
            if tuple(tokens[place : place + size - 1]) == end:
                scores[row, tokens[place + size - 1]] = _NEVER
    return scores


def _not_yet(ids: Ids, scores: Scores, options: SearchOptions) -> Scores:
    if ids.shape[1] >= options.min_length:
        return scores
    scores = scores.copy()
    scores[:, list(options.ends)] = _NEVER
    return scores


def _allowed(ids: Ids, scores: Scores, allowed: Allowed, rows: int) -> Scores:
    kept = np.full_like(scores, _NEVER)
    for row, tokens in enumerate(ids):
        these = list(allowed(row // rows, tokens))
        kept[row, these] = scores[row, these]
    return kept


def _only(scores: Scores, tokens: Sequence[int]) -> Scores:
    kept = np.full_like(scores, _NEVER)
    kept[:, list(tokens)] = 0.0
    return kept
