"""A JSON list with an object for every question, as DPR's files are, read as a stream.

The training files of DPR have several gigabytes: only a window of the file is in memory, from the object that is
being read on, about a megabyte, or as much as the longest object needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragweave.errors import DataError
from ragweave.evaluation.data.lines import data_errors
from ragweave.evaluation.data.record import Record
from ragweave.knowledge.ingest.loaders.decoding import read_pieces

LONGEST = 64 * 2**20
"""How many characters one object may have."""

_INK = re.compile(r"[^ \t\n\r]")
_DECODER = json.JSONDecoder()


def from_json_list(path: Path) -> Iterator[Record]:
    """Read a file that is one JSON list of objects.

    Args:
        path: The file.

    Yields:
        A record for every object, with its number and the line that it begins in.

    Raises:
        DataError: The file cannot be read, or is something else.
    """
    with data_errors():
        window = _Window(read_pieces(path))
        if window.next_character() != "[":
            raise DataError(
                f"{path} is not a JSON list of questions, as DPR has them: choose another --format."
            )
        window.skip()
        if window.next_character() != "]":
            yield from _objects(path, window)
        window.skip()
        if window.next_character():
            raise DataError(f"Line {window.line} of {path} goes on after the end of the list: remove it.")


def _objects(path: Path, window: _Window) -> Iterator[Record]:
    """The objects of a list up to the bracket that closes it."""
    number, separator = 0, ","
    while separator == ",":
        number += 1
        window.next_character()
        where = f"question {number}, line {window.line} of {path}"
        fields = window.take_value(where)
        if not isinstance(fields, dict):
            raise DataError(f"The {where} is not a JSON object: write a list of objects.")
        yield Record(where, fields)
        separator = window.next_character()
        if separator == ",":
            window.skip()
    if separator != "]":
        raise DataError(
            f"Line {window.line} of {path} has neither a comma nor the end of the list after question {number}: the "
            "file is cut off, or damaged."
        )


class _Window:
    """A part of a text, from where it is being read on."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._text = ""
        self._start = 0
        self.line = 1

    def next_character(self) -> str:
        """The next one that is not blank, which stays; empty at the end."""
        while True:
            found = _INK.search(self._text, self._start)
            self.skip((found.start() if found else len(self._text)) - self._start)
            if found:
                return found[0]
            if not self._grow():
                return ""

    def skip(self, characters: int = 1) -> None:
        """Leave characters behind."""
        end = self._start + characters
        self.line += self._text.count("\n", self._start, end)
        self._start = end

    def take_value(self, where: str) -> Any:
        """Read the JSON value that begins here, and leave it behind.

        Raises:
            DataError: It is damaged, cut off, or longer than any question.
        """
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._start)
            except json.JSONDecodeError as error:
                # The rest may not have been read yet. As much again each time, so that all is parsed twice at most.
                known = len(self._text) - self._start
                if known > LONGEST or not self._grow(known):
                    line = self.line + self._text.count("\n", self._start, error.pos)
                    limit = f", or longer than {LONGEST // 2**20} MiB" if known > LONGEST else ""
                    raise DataError(
                        f"The {where} is not valid JSON{limit} ({error.msg} in line {line})."
                    ) from error
            except (ValueError, RecursionError) as error:  # numbers and nesting without end
                raise DataError(f"The {where} is not valid JSON ({error}).") from error
            else:
                self.skip(end - self._start)
                return value

    def _grow(self, characters: int = 1) -> bool:
        """Read on, by so many characters at least as far as there are so many; ``False`` at the end."""
        added: list[str] = []
        while sum(map(len, added)) < characters and (piece := next(self._pieces, None)) is not None:
            added.append(piece)
        self._text, self._start = "".join([self._text[self._start :], *added]), 0
        return any(added)
