"""The formats that questions come in: JSON lines, JSON lists, text, tables, Parquet and data sets.

DPR's training files, JSON lists, have several gigabytes. Only a window of such a file is in memory: about a megabyte,
or as much as the longest object needs. The readers raise a `DataError` if a file cannot be read or is malformed.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ragweave.errors import DataError
from ragweave.evaluation.data.layouts import squad_questions
from ragweave.evaluation.data.records import Record, data_error, data_errors, numbered_lines, parse_list
from ragweave.knowledge.ingest.loaders.tables import table_rows
from ragweave.knowledge.ingest.loaders.text import read_pieces

MAX_OBJECT_LENGTH = 64 * 2**20
"""Maximum number of characters of one object in a list."""

_NOT_BLANK = re.compile(r"[^ \t\n\r]")
_DECODER = json.JSONDecoder()
_BATCH_ROWS = 1000
_DEFAULT_SPLIT = "validation"
_SAVED = ("dataset_dict.json", "state.json")
"""The files in a folder that ``save_to_disk`` has written."""


# --- JSON ---


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
                # The value may continue outside the window. Doubling the window bounds the repeated parsing.
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


# --- Text and tables ---


def read_qa(path: Path) -> Iterator[Record]:
    """Read a ``qa`` gold file of the research scripts or DPR: a question, a tab and a list of answers per line."""
    for where, line in numbered_lines(path):
        fields = split_qa(line)
        if fields is None:
            raise data_error(where, "has no tab: write the question, a tab and a list of answers.")
        question, answers = fields
        yield Record(where, {"question": question, "answers": parse_list(answers, where)})


def split_qa(line: str) -> tuple[str, str] | None:
    """The question and the answers of a line; ``None`` if it has no tab.

    Both may be quoted as in CSV. If the quotation marks are not valid CSV, they belong to the text: a question can
    begin with a quotation.
    """
    try:
        question, answers = next(csv.reader([line], delimiter="\t", strict=True))
    except (csv.Error, ValueError):
        question, tab, answers = line.partition("\t")
        if not tab:
            return None
    return question, answers


def read_pairs(questions: Path, answers: Path) -> Iterator[Record]:
    """Read a file of questions and a file of answers side by side; blank lines count."""
    lines = zip_longest(numbered_lines(questions, keep_blank=True), numbered_lines(answers, keep_blank=True))
    for number, (question, answer) in enumerate(lines, start=1):
        if question is None or answer is None:
            longer, shorter = (answers, questions) if question is None else (questions, answers)
            raise DataError(
                f"{shorter} ends before line {number} of {longer}: give one answer for each question, line by line."
            )
        yield Record(question[0], {"question": question[1], "answers": [answer[1]]})


def read_table(path: Path) -> Iterator[Record]:
    """Read a table of comma- or tab-separated values whose first line names the columns."""
    with data_errors():
        rows = table_rows(path)
        _, header = next(rows, (1, []))
        names = [name.strip() for name in header]
        if duplicate := next((name for name in names if names.count(name) > 1), None):
            raise DataError(f"The table {path} has two columns '{duplicate}': rename one of them.")
        for line, row in rows:
            # An empty field means no value, like null in other formats.
            fields = {name: field or None for name, field in zip(names, row, strict=True)}
            yield Record(f"line {line} of {path}", fields, is_text=True)


# --- Parquet and data sets ---


def read_parquet(path: Path) -> Iterator[Record]:
    """Read a Parquet file in batches of rows."""
    number = 0
    try:
        with pq.ParquetFile(path, memory_map=True) as content:
            for batch in content.iter_batches(batch_size=_BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(f"row {number} of {path}", fields)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not a complete Parquet file ({error}): download it again.") from error


def read_dataset(name: str) -> Iterator[Record]:
    """Read a split of a data set, ``NAME[,CONFIGURATION][:SPLIT]``, and replace class numbers by class names.

    ``NAME`` is a folder written by ``save_to_disk``, a folder of data files, or a name on the hub. The default split
    is the only one that was saved, or ``validation``.
    """
    try:
        rows = _load(name)
    # datasets raises OSError for unknown names, ValueError for unknown splits, RuntimeError for loading scripts.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"The data set '{name}' cannot be read ({reason}): write NAME,CONFIGURATION:SPLIT, or the folder of a "
            "saved data set."
        ) from error
    labels = {
        column: feature
        for column, feature in rows.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    for number, row in enumerate(rows, start=1):
        # -1 stands for an unknown class.
        names = {
            column: None if row[column] in (None, -1) else feature.int2str(row[column])
            for column, feature in labels.items()
        }
        yield Record(f"row {number} of {name}", {**row, **names})


def _load(name: str) -> Any:
    """The rows of a split, as plain Python values."""
    path, split = (name, "") if Path(name).is_dir() else _split_last(name, ":")
    if not any((Path(path) / file).is_file() for file in _SAVED):
        path, configuration = (path, "") if Path(path).is_dir() else _split_last(path, ",")
        return datasets.load_dataset(path, configuration or None, split=split or _DEFAULT_SPLIT)
    loaded = datasets.load_from_disk(path)
    if isinstance(loaded, datasets.DatasetDict):
        split = split or (next(iter(loaded)) if len(loaded) == 1 else _DEFAULT_SPLIT)
        if split not in loaded:
            raise ValueError(f"it has the splits {', '.join(loaded)}, not '{split}'")
        loaded = loaded[split]
    elif split:
        raise ValueError("it was saved without splits")
    return loaded.with_format(None)


def _split_last(name: str, separator: str) -> tuple[str, str]:
    """A name, and the text after its last separator."""
    head, match, tail = name.rpartition(separator)
    return (head, tail) if match else (name, "")
