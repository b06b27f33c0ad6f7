"""Plain text: ``qa`` gold files, pairs of files, and tables.

The readers raise a `DataError` if a file cannot be read or has another form.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from ragweave.errors import DataError
from ragweave.evaluation.data.records import Record, data_error, data_errors, numbered_lines, parse_list
from ragweave.knowledge.ingest.loaders.tables import table_rows


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
