"""Whether answers and passages match gold answers: exact match, F1, regular expressions and DPR's ``has_answer``.

Without a gold answer, and with an invalid pattern, the functions raise a `ConfigurationError`.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

import regex  # the standard library's re has no Unicode categories

from ragweave.errors import ConfigurationError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TOKENS = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")


def require_golds(golds: Collection[Any], name: str = "golds") -> None:
    """Raise `ConfigurationError` if there are no gold items, or a string in place of a list of them."""
    if isinstance(golds, str | bytes):
        raise ConfigurationError(f"{name} is a string: give a list, such as [{golds!r}].")
    if len(golds) == 0:
        raise ConfigurationError(f"{name} is empty: leave out questions that have nothing to compare with.")


def normalize_answer(text: str) -> str:
    """Apply SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single spaces.

    Source: the evaluation script of SQuAD 1.1 (Rajpurkar et al. 2016).

    Example:
        >>> normalize_answer("The Eiffel  Tower!")
        'eiffel tower'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """Return 1.0 if the normalised prediction equals a normalised gold answer, else 0.0.

    Source: the evaluation script of SQuAD 1.1 (Rajpurkar et al. 2016).

    Example:
        >>> exact_match("the Eiffel Tower.", ["Eiffel Tower", "La tour Eiffel"])
        1.0
    """
    require_golds(golds)
    normalized = normalize_answer(prediction)
    return float(any(normalized == normalize_answer(gold) for gold in golds))


def f1(prediction: str, golds: Sequence[str]) -> float:
    """Return SQuAD's token-level F1 with the best gold answer, in [0, 1].

    Source: the evaluation script of SQuAD 1.1 (Rajpurkar et al. 2016). As in that script, F1 is 0 if both texts are
    empty after normalisation. SQuAD 2, which has questions without an answer, counts this case as 1.

    Example:
        >>> f1("Tower of Paris", ["the Eiffel Tower"])
        0.4
    """
    require_golds(golds)
    predicted = normalize_answer(prediction).split()
    return max(_token_f1(predicted, normalize_answer(gold).split()) for gold in golds)


def _token_f1(predicted: list[str], gold: list[str]) -> float:
    shared = (Counter(predicted) & Counter(gold)).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def regex_match(prediction: str, golds: Sequence[str]) -> float:
    """Return 1.0 if the start of the prediction matches a gold pattern, ignoring case, else 0.0.

    This is exact match for CuratedTREC, whose gold answers are regular expressions. Source: the evaluation of DrQA
    (Chen et al. 2017). One case differs: an invalid pattern is an error here and matches nothing there.

    Example:
        >>> regex_match("July 20, 1969", [r"(July )?(20,? )?1969"])
        1.0
    """
    require_golds(golds)
    return float(any(compile_pattern(gold).match(prediction) for gold in golds))


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> Any:
    """Compile a gold pattern, which must be a regular expression, with the flags of DrQA and DPR."""
    try:
        return regex.compile(pattern, flags=regex.IGNORECASE | regex.UNICODE | regex.MULTILINE)
    except regex.error as error:
        raise ConfigurationError(
            f"The gold answer {pattern!r} is not a valid regular expression ({error}): correct it or leave it out."
        ) from error


def dpr_tokenize(text: str) -> list[str]:
    """Split a text into lower-case words and single punctuation marks.

    A word is a run of letters, digits and combining marks. Every other character that is neither a space nor a
    control character is a token by itself. Accents are separated from their letters (NFD). Source: the
    ``SimpleTokenizer`` of DPR (Karpukhin et al. 2020) and DrQA.

    Example:
        >>> dpr_tokenize("Don't panic: 3.14!")
        ['don', "'", 't', 'panic', ':', '3', '.', '14', '!']
    """
    return [token.lower() for token in _TOKENS.findall(unicodedata.normalize("NFD", text))]


def has_answer(text: str, golds: Sequence[str], *, patterns: bool = False) -> bool:
    """Tell whether a passage contains a gold answer, token by token, ignoring case.

    Source: DPR's ``has_answer`` (Karpukhin et al. 2020). Two cases differ: a gold answer without tokens is in no
    passage (there it is in all), and an invalid pattern is an error (there it is in none).

    Args:
        text: The passage.
        golds: The gold answers.
        patterns: Treat the gold answers as regular expressions, like CuratedTREC's, and search for them anywhere.

    Example:
        >>> has_answer("It was built by Gustave Eiffel, of Paris.", ["gustave eiffel"])
        True
        >>> has_answer("The Parisian style", ["Paris"])
        False
    """
    require_golds(golds)
    if patterns:
        text = unicodedata.normalize("NFD", text)
        return any(compile_pattern(unicodedata.normalize("NFD", gold)).search(text) for gold in golds)
    haystack = _joined_tokens(text)
    # Tokens contain no spaces, so a substring search finds exactly the runs of whole tokens.
    return any(needle.strip() and needle in haystack for needle in map(_joined_tokens, golds))


def _joined_tokens(text: str) -> str:
    return f" {' '.join(dpr_tokenize(text))} "
