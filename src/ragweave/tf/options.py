"""How to decode: what a GenerationConfig of transformers says, as far as it is known here, and nothing else.

transformers' own loops need torch; the search of `ragweave.tf.search` needs numpy alone. An option that it does not
know is refused, since an answer that was made without it would look like one that was made with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from transformers import GenerationConfig

from ragweave.errors import ConfigurationError

Ids = NDArray[np.int64]
Scores = NDArray[np.float32]
Processor = Callable[[Ids, Scores], Scores]
"""From the tokens so far, (N, t), and the scores of what may follow, (N, V), to other scores."""

Allowed = Callable[[int, Ids], Sequence[int]]
"""From the number of a search and the tokens of one of its beams to the tokens that may follow."""

_DEFAULT_LENGTH = 20

_KNOWN = frozenset(
    {
        "bos_token_id", "decoder_start_token_id", "do_sample", "early_stopping", "eos_token_id",
        "forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length", "max_new_tokens",
        "min_length", "min_new_tokens",
        "no_repeat_ngram_size", "num_beams", "num_return_sequences", "pad_token_id", "repetition_penalty",
        "return_dict_in_generate", "temperature", "top_k", "top_p",
    }
)  # fmt: skip

# They say how a loop of transformers is run, not what it returns.
_WITHOUT_EFFECT = frozenset(
    {
        "_from_model_config", "cache_config", "cache_implementation", "disable_compile", "max_time",
        "output_attentions", "output_hidden_states", "output_logits", "output_scores", "remove_invalid_values",
        "renormalize_logits", "return_legacy_cache", "transformers_version", "use_cache",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How to search.

    Attributes:
        start: The token that every answer begins with; it is no part of its length.
        pad: What fills rows up.
        ends: The tokens that end an answer.
        max_length: The longest answer, with the start token.
        min_length: The shortest, with the start token.
        num_beams: R.
        num_return_sequences: Answers of each search, best first.
        do_sample: Draw tokens rather than take the likeliest.
        temperature: Above 1 draws more evenly.
        top_k: Draw among so many tokens; 0 for all.
        top_p: Draw among the likeliest tokens that have this mass.
        length_penalty: Beam search divides log-probabilities by the length to this power.
        early_stopping: Whether beam search stops at R answers (true), when the heuristic of transformers sees nothing
            better coming (false), or when nothing better can come ("never").
        repetition_penalty: What the score of a token that has been said is divided by.
        no_repeat_ngram_size: No run of so many tokens comes twice; 0 for no such rule.
        forced_bos: The token after the start token.
        forced_eos: The tokens that may stand last in an answer as long as may be.
    """

    start: int
    pad: int
    ends: tuple[int, ...]
    max_length: int
    min_length: int = 0
    num_beams: int = 1
    num_return_sequences: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    forced_bos: int | None = None
    forced_eos: tuple[int, ...] = ()


def search_options(config: GenerationConfig) -> SearchOptions:
    """What a GenerationConfig says.

    Args:
        config: The configuration, with the model's special tokens in it.

    Raises:
        ConfigurationError: It says something that is not known here, or that cannot be.
    """
    refuse_unknown_options(config)
    if config.decoder_start_token_id is None:
        raise ConfigurationError("There is no decoder_start_token_id to begin an answer with; give one.")
    if config.max_new_tokens is not None:
        max_length = int(config.max_new_tokens) + 1
    else:
        max_length = int(config.max_length or _DEFAULT_LENGTH)
    if max_length < 2:
        raise ConfigurationError(
            "max_new_tokens has to be 1 or more, max_length 2: it counts the start token."
        )
    least = config.min_length or 0
    if config.min_new_tokens is not None:
        least = max(least, int(config.min_new_tokens) + 1)
    beams, returned = config.num_beams or 1, config.num_return_sequences or 1
    sampling = bool(config.do_sample)
    if beams > 1 and sampling:
        raise ConfigurationError(
            "Beams and sampling go together in the torch classes alone; choose one of them."
        )
    if not sampling and returned > beams:
        raise ConfigurationError(
            f"num_return_sequences is {returned}, but there are {beams} beams: raise num_beams, or sample."
        )
    ends = _tokens(config.eos_token_id)
    pad = config.pad_token_id
    if pad is None:
        pad = ends[0] if ends else config.decoder_start_token_id
    return SearchOptions(
        start=int(config.decoder_start_token_id),
        pad=int(pad),
        ends=ends,
        max_length=max_length,
        min_length=least,
        num_beams=beams,
        num_return_sequences=returned,
        do_sample=sampling,
        temperature=_or(config.temperature, 1.0),
        top_k=_or(config.top_k, 50),  # the usual number of transformers
        top_p=_or(config.top_p, 1.0),
        length_penalty=_or(config.length_penalty, 1.0),
        early_stopping=_or(config.early_stopping, False),
        repetition_penalty=_or(config.repetition_penalty, 1.0),
        no_repeat_ngram_size=_or(config.no_repeat_ngram_size, 0),
        forced_bos=config.forced_bos_token_id,
        forced_eos=_tokens(config.forced_eos_token_id),
    )


def refuse_unknown_options(config: GenerationConfig) -> None:
    """Check that nothing is asked for that is not known here.

    Raises:
        ConfigurationError: Something is; it is named.
    """
    usual = GenerationConfig().to_dict()
    asked = {
        name
        for name, value in config.to_dict().items()
        if value is not None
        and name not in _KNOWN | _WITHOUT_EFFECT
        and _says_something(value, usual.get(name))
    }
    if asked:
        raise ConfigurationError(
            f"ragweave.tf does not decode with {', '.join(sorted(asked))}: leave it out, or use the torch classes. "
            f"It knows {', '.join(sorted(_KNOWN))}."
        )


def _says_something(value: Any, usual: Any) -> bool:
    # What a setting is where nothing was set, in configurations of this and of earlier versions.
    return value != usual and value not in (0, 0.0, 1, 1.0, False, [], {}, "")


def _tokens(given: int | Sequence[int] | None) -> tuple[int, ...]:
    if given is None:
        return ()
    return tuple(int(own) for own in given) if isinstance(given, Sequence) else (int(given),)


def _or(given: Any, otherwise: Any) -> Any:
    return otherwise if given is None else given
