"""Options of decoding: the fields of a GenerationConfig that `ragweave.tf` knows, and their effects on scores.

The loops of transformers need torch; `ragweave.tf.beam_search` needs only numpy. Unknown options are refused, since
an answer decoded without an option looks like one decoded with it.

Notation used for array shapes: N rows (beams of all questions), t tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from transformers import GenerationConfig

from ragweave.errors import ConfigurationError

Ids = NDArray[np.int64]
Scores = NDArray[np.float32]
Processor = Callable[[Ids, Scores], Scores]
"""From the tokens so far, (N, t), and the scores of the next token, (N, V), to other scores."""

AllowedTokens = Callable[[int, Ids], Sequence[int]]
"""From the number of a question and the tokens of one of its beams to the tokens that may follow."""

_NEVER = np.float32(-np.inf)


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to decode. The names, and the defaults, are those of GenerationConfig.

    Attributes:
        decoder_start_token_id: First token of every answer.
        pad_token_id: The token that fills rows; the first of the end tokens by default.
        eos_token_id: The tokens that end an answer.
        max_length: Length of the longest answer, with the start token; ``max_new_tokens`` counts without it.
        min_length: Length of the shortest, with the start token; ``min_new_tokens`` counts without it.
        num_beams: R; 1 for greedy search.
        num_return_sequences: Answers per question, best first.
        do_sample: Sample tokens; with beams, the tokens that beams continue with.
        temperature: Higher values sample more evenly.
        top_k: Sample among this many tokens; 0 for all.
        top_p: Sample among the most probable tokens that have this mass.
        length_penalty: Beam search divides log-probabilities by the length to this power.
        early_stopping: When beam search stops: with R answers (true), when it expects no better one (false), or when
            no better one is possible ("never").
        repetition_penalty: Divides the score of a token that occurred before.
        no_repeat_ngram_size: No n-gram of this size occurs twice; 0 for no such rule.
        forced_bos_token_id: The token after the start token.
        forced_eos_token_id: The tokens allowed at the end of an answer of ``max_length``.
    """

    decoder_start_token_id: int
    pad_token_id: int
    eos_token_id: tuple[int, ...]
    max_length: int = 20
    min_length: int = 0
    num_beams: int = 1
    num_return_sequences: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise ConfigurationError(
                "max_new_tokens must be 1 or more, max_length 2: it counts the start token."
            )
        beam_search = self.num_beams > 1 or not self.do_sample
        if beam_search and self.num_return_sequences > self.num_beams:
            raise ConfigurationError(
                f"num_return_sequences is {self.num_return_sequences}, but there are {self.num_beams} beams: raise "
                "num_beams, or sample without beams."
            )

    @property
    def rows(self) -> int:
        """R, the rows of one search: its beams, or its samples."""
        return self.num_beams if self.num_beams > 1 or not self.do_sample else self.num_return_sequences


_FIELDS = [field.name for field in fields(GenerationOptions)]
_KNOWN = {*_FIELDS, "bos_token_id", "max_new_tokens", "min_new_tokens", "return_dict_in_generate"}
# These change how transformers' loops run, not what they return.
_WITHOUT_EFFECT = {
    "_from_model_config", "cache_config", "cache_implementation", "disable_compile", "max_time",
    "output_attentions", "output_hidden_states", "output_logits", "output_scores", "remove_invalid_values",
    "renormalize_logits", "return_legacy_cache", "transformers_version", "use_cache",
}  # fmt: skip


def generation_options(config: GenerationConfig) -> GenerationOptions:
    """The options in a GenerationConfig with special tokens; `ConfigurationError` if one is unknown or impossible."""
    _refuse_unknown_options(config)
    options = {name: getattr(config, name) for name in _FIELDS if getattr(config, name) is not None}
    if "decoder_start_token_id" not in options:
        raise ConfigurationError("There is no decoder_start_token_id to begin an answer with; give one.")
    options["eos_token_id"] = ends = _as_tuple(config.eos_token_id)
    options["forced_eos_token_id"] = _as_tuple(config.forced_eos_token_id)
    options.setdefault("pad_token_id", ends[0] if ends else config.decoder_start_token_id)
    if config.max_new_tokens is not None:
        options["max_length"] = config.max_new_tokens + 1
    if config.min_new_tokens is not None:
        options["min_length"] = max(config.min_length or 0, config.min_new_tokens + 1)
    return GenerationOptions(**options)


def _refuse_unknown_options(config: GenerationConfig) -> None:
    defaults = GenerationConfig().to_dict()
    # Further values that have no effect, in configurations of this and of earlier versions.
    neutral: tuple[Any, ...] = (None, 0, 0.0, 1, 1.0, False, [], {}, "")
    unknown = [
        name
        for name, value in config.to_dict().items()
        if name not in _KNOWN | _WITHOUT_EFFECT and value != defaults.get(name) and value not in neutral
    ]
    if unknown:
        raise ConfigurationError(
            f"ragweave.tf does not decode with {', '.join(sorted(unknown))}: leave it out, or use the torch classes. "
            f"It supports {', '.join(sorted(_KNOWN))}."
        )


def _as_tuple(tokens: int | Sequence[int] | None) -> tuple[int, ...]:
    if tokens is None:
        return ()
    return tuple(tokens) if isinstance(tokens, Sequence) else (tokens,)


def logits_processors(
    options: GenerationOptions, allowed: AllowedTokens | None, rows: int
) -> Iterator[Processor]:
    """The processors of transformers that the options require, in transformers' order.

    ``allowed`` is ``prefix_allowed_tokens_fn``, and ``rows`` the number of beams of each question.
    """
    if options.repetition_penalty != 1.0:
        yield lambda ids, scores: _penalise_repetition(ids, scores, options.repetition_penalty)
    if options.no_repeat_ngram_size > 0:
        yield lambda ids, scores: _forbid_ngrams(ids, scores, options.no_repeat_ngram_size)
    if options.min_length > 0 and options.eos_token_id:
        yield lambda ids, scores: _forbid_early_end(ids, scores, options)
    if allowed is not None:
        yield lambda ids, scores: _keep_allowed(ids, scores, allowed, rows)
    if (first := options.forced_bos_token_id) is not None:
        yield lambda ids, scores: _force(scores, [first]) if ids.shape[1] == 1 else scores
    if last := options.forced_eos_token_id:
        length = options.max_length - 1
        yield lambda ids, scores: _force(scores, last) if ids.shape[1] == length else scores


def _penalise_repetition(ids: Ids, scores: Scores, penalty: float) -> Scores:
    repeated = np.take_along_axis(scores, ids, axis=1)
    scores = scores.copy()
    np.put_along_axis(scores, ids, np.where(repeated < 0, repeated * penalty, repeated / penalty), axis=1)
    return scores


def _forbid_ngrams(ids: Ids, scores: Scores, size: int) -> Scores:
    scores = scores.copy()
    for row, tokens in enumerate(ids.tolist()):
        prefix = tokens[len(tokens) - size + 1 :]
        for start in range(len(tokens) - size + 1):
            if tokens[start : start + size - 1] == prefix:
                scores[row, tokens[start + size - 1]] = _NEVER
    return scores


def _forbid_early_end(ids: Ids, scores: Scores, options: GenerationOptions) -> Scores:
    if ids.shape[1] >= options.min_length:
        return scores
    scores = scores.copy()
    scores[:, options.eos_token_id] = _NEVER
    return scores


def _keep_allowed(ids: Ids, scores: Scores, allowed: AllowedTokens, rows: int) -> Scores:
    result = np.full_like(scores, _NEVER)
    for row, tokens in enumerate(ids):
        columns = list(allowed(row // rows, tokens))
        result[row, columns] = scores[row, columns]
    return result


def _force(scores: Scores, tokens: Sequence[int]) -> Scores:
    forced = np.full_like(scores, _NEVER)
    forced[:, tokens] = 0.0
    return forced


def warp(scores: Scores, options: GenerationOptions) -> Scores:
    """Scores to sample from, (N, V): ``temperature``, then ``top_k``, then ``top_p``."""
    # A beam can continue only if one of its tokens does not end the answer.
    fewest = 1 + max(1, len(options.eos_token_id)) if options.num_beams > 1 else 1
    scores = scores / np.float32(options.temperature)
    top_k = max(options.top_k, fewest) if options.top_k > 0 else 0
    if 0 < top_k < scores.shape[1]:
        lowest = np.partition(scores, -top_k, axis=1)[:, -top_k, None]
        scores = np.where(scores < lowest, _NEVER, scores)
    if options.top_p < 1.0:
        order = np.argsort(scores, axis=1, kind="stable")
        ascending = np.exp(log_softmax(np.take_along_axis(scores, order, axis=1)))
        dropped = np.cumsum(ascending, axis=1) <= 1.0 - options.top_p
        dropped[:, -fewest:] = False  # the most probable tokens always stay
        mask = np.zeros_like(dropped)
        np.put_along_axis(mask, order, dropped, axis=1)
        scores = np.where(mask, _NEVER, scores)
    return scores


def log_softmax(scores: Scores) -> Scores:
    """Log-probabilities of scores, (N, V)."""
    highest = scores.max(axis=1, keepdims=True)
    shifted: Scores = scores - highest
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
