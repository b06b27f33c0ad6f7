"""Records, the questions of a file before conversion, and shared code of the readers."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragweave.errors import DataError, SourceError
from ragweave.knowledge.ingest.loaders.text import read_lines


@dataclass(frozen=True, slots=True)
class Record:
    """One question of a file, before conversion."""

    where: str  # the file and the line, for messages
    fields: Mapping[str, Any]
    is_text: bool = False  # whether all values are text, as in a table, and lists have to be parsed


def data_error(where: str, problem: str) -> DataError:
    """An error about one record: its position, what is wrong, and what to do."""
    return DataError(f"{capitalized(where)} {problem}")


def capitalized(where: str) -> str:
    """A position at the start of a sentence."""
    return where[:1].upper() + where[1:]


@contextmanager
def data_errors() -> Iterator[None]:
    """Turn the errors of the document loaders into errors of data."""
    try:
        yield
    except SourceError as error:
        raise DataError(str(error)) from error


def numbered_lines(path: Path, *, keep_blank: bool = False) -> Iterator[tuple[str, str]]:
    """The lines of a file with their positions and without line ends; `DataError` if it is not UTF-8 text."""
    with data_errors():
        for number, line in read_lines(path):
            if keep_blank or line.strip():
                yield f"line {number} of {path}", line.rstrip("\r\n")


def parse_list(text: str, where: str, name: str = "answers") -> list[Any]:
    """Parse a JSON or Python list without executing anything. Raises `DataError` if it is not a list."""
    value: Any = None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            value = ast.literal_eval(text.strip())
    if not isinstance(value, (list, tuple)):
        raise data_error(
            where, f'has {name} that are not a list: write ["Lima", "Lima, Peru"], and not {text[:40]!r}.'
        )
    return list(value)
