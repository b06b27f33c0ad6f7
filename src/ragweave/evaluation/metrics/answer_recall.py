"""Whether retrieved passages hold the answer's string, whatever passage was marked as gold."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from ragweave.evaluation.metrics.checks import require_depth, require_golds
from ragweave.evaluation.metrics.patterns import compile_pattern
from ragweave.evaluation.metrics.words import words


def has_answer(text: str, golds: Sequence[str], *, patterns: bool = False) -> bool:
    """Whether a passage holds one of the gold answers, word for word; case does not count.

    Source: DPR's ``has_answer`` (Karpukhin et al. 2020). Two cases differ from it: a gold answer without any word
    is in no passage (there it is in all), and a pattern that is none is an error (there it is in none).

    Args:
        text: The passage.
        golds: The gold answers.
        patterns: The gold answers are regular expressions, as CuratedTREC's are, to be found anywhere.

    Raises:
        ConfigurationError: There is no gold answer, or one is no regular expression though it should be.

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
    haystack = _spaced(text)
    # Words hold no spaces, so that a run of words is found as a string.
    return any(needle.strip() and needle in haystack for needle in map(_spaced, golds))


def answer_recall_at_k(
    texts: Sequence[str], golds: Sequence[str], k: int, *, patterns: bool = False
) -> float:
    """1.0 where one of the first k passages holds a gold answer, else 0.0.

    Its mean over questions is DPR's top-k retrieval accuracy (Karpukhin et al. 2020, table 2).

    Args:
        texts: The passages, best first.
        golds: The gold answers.
        k: How many passages count.
        patterns: The gold answers are regular expressions.

    Raises:
        ConfigurationError: ``k`` is less than one, or the gold answers are as `has_answer` refuses them.

    Example:
        >>> passages = ["Lyon is on the Rhône.", "Paris is on the Seine."]
        >>> [answer_recall_at_k(passages, ["Seine"], k) for k in (1, 2)]
        [0.0, 1.0]
    """
    require_depth(k)
    require_golds(golds)
    return float(any(has_answer(text, golds, patterns=patterns) for text in texts[:k]))


def _spaced(text: str) -> str:
    return f" {' '.join(words(text))} "
