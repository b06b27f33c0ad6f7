"""Words as DPR takes them: what passages, long answers and questions are split into."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

from ragweave.errors import require_extra


def words(text: str) -> list[str]:
    """Split a text into words in lower case and single marks of punctuation.

    Runs of letters, digits and combining marks are words; any other character that is neither space nor control is
    one by itself. Accents are written apart from their letters (NFD). Source: DPR's ``SimpleTokenizer`` (Karpukhin
    et al. 2020), which is DrQA's.

    Raises:
        MissingExtraError: The package ``regex`` is not installed.

    Example:
        >>> words("Don't panic: 3.14!")
        ['don', "'", 't', 'panic', ':', '3', '.', '14', '!']
    """
    return [word.lower() for word in _words().findall(unicodedata.normalize("NFD", text))]


@cache
def _words() -> Any:
    require_extra("regex", "eval")
    import regex  # the standard library's has no Unicode categories

    return regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")
