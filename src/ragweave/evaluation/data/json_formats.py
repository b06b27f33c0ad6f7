"""JSON lines, and a JSON list of objects such as DPR's, which is streamed.

DPR's training files have several gigabytes. Only a window of the file is in memory: about a megabyte, or as much as
the longest object needs. The readers raise a `DataError` if a file cannot be read or has another form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragweave.errors import DataError
from ragweave.evaluation.data.layouts import squad_questions
from ragweave.evaluation.data.records import Record, data_error, data_errors, numbered_lines
from ragweave.knowledge.ingest.loaders.text import read_pieces

MAX_OBJECT_LENGTH = 64 * 2**20
"""The most characters of one object in a list."""

_NOT_BLANK = re.compile(r"[^ \t\n\r]")
_DECODER = json.JSONDecoder()


def read_json_lines(path: Path) -> Iterator[Record]:
    """Read a file with a JSON object per line; blank lines are skipped."""
    for where, line in numbered_lines(path):
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise data_error(where, f"is not valid JSON ({error}): write one object a line.") from error
        if not isinstance(fields, dict):
            raise data_error(where, "is not a JSON object: write one object a line.")
        if isinstance(fields.get("data"), list) and "question" not in fields:
            yield from squad_questions(fields, where)
        else:
            yield Record(where, fields)


def read_json_list(path: Path) -> Iterator[Record]:
    """Read a file that is one JSON list of objects."""
    with data_errors():
        window = _Window(read_pieces(path))
        if window.next_character() != "[":
            raise DataError(f"{path} is not a JSON list of questions, like DPR's: choose another --format.")
        window.skip()
        if window.next_character() != "]":
            yield from _list_items(path, window)
        window.skip()
        if window.next_character():
            raise DataError(f"Line {window.line} of {path} continues after the end of the list: remove it.")


def _list_items(path: Path, window: _Window) -> Iterator[Record]:
    """The objects of a list up to its closing bracket."""
    number, separator = 0, ","
    while separator == ",":
        number += 1
        window.next_character()
        where = f"question {number}, line {window.line} of {path}"
        fields = window.take_value(where)
        if not isinstance(fields, dict):
            raise data_error(where, "is not a JSON object: write a list of objects.")
        yield Record(where, fields)
        separator = window.next_character()
        if separator == ",":
            window.skip()
    if separator != "]":
        raise DataError(
            f"Line {window.line} of {path} has neither a comma nor the end of the list after question {number}: the "
            "file is truncated or damaged."
        )


class _Window:
    """The part of a text that starts at the reading position."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._text = ""
        self._start = 0
        self.line = 1

    def next_character(self) -> str:
        """Skip blanks and return the next character without consuming it; empty at the end."""
        while True:
            match = _NOT_BLANK.search(self._text, self._start)
            self.skip((match.start() if match else len(self._text)) - self._start)
            if match:
                return match[0]
            if not self._grow():
                return ""

    def skip(self, characters: int = 1) -> None:
        """Move the reading position."""
        end = self._start + characters
        self.line += self._text.count("\n", self._start, end)
        self._start = end

    def take_value(self, where: str) -> Any:
        """Consume the JSON value at the reading position; an error if it is damaged, truncated or too long."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._start)
            except json.JSONDecodeError as error:
                # The value may continue outside the window. Doubling the window parses no text more than twice.
                length = len(self._text) - self._start
                if length > MAX_OBJECT_LENGTH or not self._grow(length):
                    line = self.line + self._text.count("\n", self._start, error.pos)
                    limit = (
                        f", or longer than {MAX_OBJECT_LENGTH // 2**20} MiB"
                        if length > MAX_OBJECT_LENGTH
                        else ""
                    )
                    problem = f"is not valid JSON{limit} ({error.msg} in line {line}): correct it."
                    raise data_error(where, problem) from error
            except (ValueError, RecursionError) as error:  # endless numbers and endless nesting
                raise data_error(where, f"is not valid JSON ({error}): correct it.") from error
            else:
                self.skip(end - self._start)
                return value

    def _grow(self, characters: int = 1) -> bool:
        """Read at least this many characters, or up to the end of the file; return whether there were any."""
        added: list[str] = []
        while sum(map(len, added)) < characters and (piece := next(self._pieces, None)) is not None:
            added.append(piece)
        self._text, self._start = "".join([self._text[self._start :], *added]), 0
        return any(added)
