"""Metadata of documents: names that conditions can use, and values that JSON and PostgreSQL can hold."""

from __future__ import annotations

import keyword
import math
import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import yaml

from ragweave.errors import ConfigurationError

LONGEST = 1000  # maximum characters of a text in metadata; longer texts are left out

_MOST = 200
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\n(?P<fields>.{0,50000}?)\n\1[ \t]*(?:\n|\Z)", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(\.\d{1,15})?")


def cleaned(fields: Mapping[Any, Any], *, numbers: bool = False) -> dict[str, Any]:
    """The fields that metadata can hold, under names that conditions can use: ``Due date`` becomes ``Due_date``.

    Fields of nested mappings become ``outer_inner``; those of ``metadata`` keep their names. With ``numbers``,
    texts that are numbers become numbers, as in CSV files.
    """
    result: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            prefix = "" if name == "metadata" else f"{name}_"
            inner = {f"{prefix}{key}": one for key, one in value.items() if not isinstance(one, Mapping)}
            result = cleaned(inner, numbers=numbers) | result
        elif (value := _value(value, numbers=numbers)) is not None and (name := _identifier(str(name))):
            result.setdefault(name, value)
        if len(result) >= _MOST:
            break
    return result


def _identifier(name: str) -> str:
    name = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", name[:100])).strip("_")
    name = f"_{name}" if name[:1].isdigit() else name
    return f"{name}_" if keyword.iskeyword(name) else name if name.isidentifier() else ""


def _value(value: Any, *, numbers: bool) -> Any:
    """A value that metadata can hold; ``None`` for others."""
    if isinstance(value, date):  # and datetime
        value = value.isoformat()
    if isinstance(value, str):
        value = value.strip()
        if numbers and (match := _NUMBER.fullmatch(value)):
            return float(value) if match[1] else int(value)
        # PostgreSQL cannot store NUL, and nothing can store half a surrogate pair.
        value = value.replace("\0", "\ufffd").encode(errors="replace").decode()
        return value if 0 < len(value) <= LONGEST else None
    if isinstance(value, bool | int):
        return value if -(2**63) <= value < 2**63 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple) and len(value) <= _MOST:
        values = [_value(one, numbers=numbers) for one in value if not isinstance(one, list | tuple)]
        return [one for one in values if one is not None] or None
    return None


def front_matter(markdown: str) -> dict[str, Any]:
    """The fields of the YAML (``---``) or TOML (``+++``) at the beginning of a text; empty if they are damaged."""
    match = _FRONT_MATTER.match(markdown)
    if match is None:
        return {}
    try:
        if match[1] == "+++":
            return cleaned(tomllib.loads(match["fields"]))
        # An alias can stand for any amount of data.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(match["fields"], yaml.SafeLoader)):
            return {}
        fields = yaml.safe_load(match["fields"])
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return cleaned(fields) if isinstance(fields, dict) else {}


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """The metadata of options such as ``year=2020``; a name that occurs several times has a list of values."""
    fields: dict[str, list[str]] = {}
    for option in options:
        name, _, value = option.partition("=")
        if not name.strip().isidentifier() or keyword.iskeyword(name.strip()) or not value.strip():
            raise ConfigurationError(
                f"--meta {option} is invalid. Write NAME=VALUE, such as year=2020, with a name of letters and digits."
            )
        fields.setdefault(name.strip(), []).append(value)
    return cleaned(
        {name: values if len(values) > 1 else values[0] for name, values in fields.items()}, numbers=True
    )
