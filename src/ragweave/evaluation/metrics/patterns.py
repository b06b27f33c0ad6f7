"""Gold answers that are regular expressions, as those of CuratedTREC."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ragweave.errors import ConfigurationError, require_extra


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> Any:
    """Compile a gold pattern with the flags of DrQA and DPR: case does not count, lines begin and end.

    Raises:
        ConfigurationError: It is no regular expression.
        MissingExtraError: The package ``regex`` is not installed.
    """
    require_extra("regex", "eval")
    import regex

    try:
        return regex.compile(pattern, flags=regex.IGNORECASE | regex.UNICODE | regex.MULTILINE)
    except regex.error as error:
        raise ConfigurationError(
            f"The gold answer {pattern!r} is no regular expression ({error}): mend it or leave it out."
        ) from error
