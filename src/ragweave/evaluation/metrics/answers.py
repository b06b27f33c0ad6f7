"""Short answers against gold answers: exact match, F1, and match with a pattern."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from ragweave.evaluation.metrics.checks import require_golds
from ragweave.evaluation.metrics.patterns import compile_pattern

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """SQuAD's normal form: lower case, no ASCII punctuation, no articles, single spaces.

    Source: the evaluation script of SQuAD 1.1 (Rajpurkar et al. 2016).

    Example:
        >>> normalize_answer("The Eiffel  Tower!")
        'eiffel tower'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1.0 where the prediction equals one of the gold answers in SQuAD's normal form, else 0.0.

    Source: the evaluation script of SQuAD 1.1 (Rajpurkar et al. 2016).

    Raises:
        ConfigurationError: There is no gold answer.

    Example:
        >>> exact_match("the Eiffel Tower.", ["Eiffel Tower", "La tour Eiffel"])
        1.0
    """
    require_golds(golds)
    normal = normalize_answer(prediction)
    return float(any(normal == normalize_answer(gold) for gold in golds))


def f1(prediction: str, golds: Sequence[str]) -> float:
    """Overlap of words with the best gold answer: SQuAD's token-level F1, in [0, 1].

    Source: the evaluation script of SQuAD 1.1 (Rajpurkar et al. 2016). Where nothing is left of both in the normal
    form, F1 is 0, as there; SQuAD 2, which knows questions without an answer, counts that as 1.

    Raises:
        ConfigurationError: There is no gold answer.

    Example:
        >>> f1("Tower of Paris", ["the Eiffel Tower"])
        0.4
    """
    require_golds(golds)
    return max(_f1(prediction, gold) for gold in golds)


def regex_match(prediction: str, golds: Sequence[str]) -> float:
    """1.0 where the prediction begins with a match of one of the patterns, else 0.0; case does not count.

    This is exact match for CuratedTREC, whose gold answers are regular expressions. Source: the evaluation of DrQA
    (Chen et al. 2017), but for a pattern that is none: there it matches nothing, here it is an error.

    Raises:
        ConfigurationError: There is no gold pattern, or one cannot be read.

    Example:
        >>> regex_match("July 20, 1969", [r"(July )?(20,? )?1969"])
        1.0
    """
    require_golds(golds)
    return float(any(compile_pattern(gold).match(prediction) for gold in golds))


def _f1(prediction: str, gold: str) -> float:
    predicted, wanted = normalize_answer(prediction).split(), normalize_answer(gold).split()
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)
