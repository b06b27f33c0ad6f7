"""The lines and pieces of files of questions, and of lists that are written in them."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ragweave.errors import DataError, SourceError
from ragweave.knowledge.ingest.loaders.decoding import read_lines


@contextmanager
def data_errors() -> Iterator[None]:
    """Turn what the readers of documents say of a file into errors of data."""
    try:
        yield
    except SourceError as error:
        raise DataError(str(error)) from error


def all_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file, without their ends, with their places.

    Raises:
        DataError: The file cannot be read, or is not UTF-8 text.
    """
    with data_errors():
        for number, line in read_lines(path):
            yield f"line {number} of {path}", line.rstrip("\r\n")


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not blank, with their places.

    Raises:
        DataError: The file cannot be read, or is not UTF-8 text.
    """
    return ((where, line) for where, line in all_lines(path) if line.strip())


def parse_list(text: str, where: str, name: str = "answers") -> list[Any]:
    """Read a list as JSON or Python writes it; nothing in it is executed.

    Raises:
        DataError: It is no list.
    """
    found: Any = None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            found = ast.literal_eval(text.strip())
    if not isinstance(found, (list, tuple)):
        raise DataError(
            f'The {where} has {name} that are no list: write ["Lima", "Lima, Peru"], and not {text[:40]!r}.'
        )
    return list(found)
