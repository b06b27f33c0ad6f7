"""Arguments of a caller: what was asked for, what is not known, what is meant for which part. No framework here."""

from __future__ import annotations

from typing import Any


def chosen(value: bool | None, otherwise: bool) -> bool:
    """What a caller asked for, or else what the configuration says."""
    return bool(otherwise if value is None else value)


def refuse_unknown(arguments: dict[str, Any]) -> None:
    """Check that a caller gave no argument that would silently do nothing.

    Raises:
        TypeError: There is one; the message names it.
    """
    # What tokenizers and transformers' Trainer pass along without being asked may stay.
    unknown = [name for name in arguments if name not in ("token_type_ids", "num_items_in_batch")]
    if unknown:
        raise TypeError(f"forward() got unknown argument(s): {', '.join(unknown)}.")


def take_prefixed(kwargs: dict[str, Any], prefix: str, *, except_for: Any) -> dict[str, Any]:
    """Move the arguments with a prefix out of ``kwargs``; fields of RagConfig that bear it stay."""
    names = [name for name in kwargs if name.startswith(prefix) and name not in except_for]
    return {name.removeprefix(prefix): kwargs.pop(name) for name in names}
