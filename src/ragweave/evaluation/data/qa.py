"""The ``qa`` gold file of the research scripts, and DPR's: a question, a tab and a list of answers in every line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ragweave.errors import DataError
from ragweave.evaluation.data.lines import lines_of, parse_list
from ragweave.evaluation.data.record import Record


def from_qa(path: Path) -> Iterator[Record]:
    """Read a ``qa`` gold file.

    Args:
        path: The file.

    Yields:
        A record a line.

    Raises:
        DataError: The file cannot be read, or a line is something else.
    """
    for where, line in lines_of(path):
        fields = split_qa(line)
        if fields is None:
            raise DataError(f"The {where} has no tab: write the question, a tab and a list of answers.")
        question, answers = fields
        yield Record(where, {"question": question, "answers": parse_list(answers, where)})


def split_qa(line: str) -> tuple[str, str] | None:
    """The question and the answers of a line; ``None`` if it has no tab.

    Both may be in quotation marks, as programs for tables write them. A line in which these do not fit together is
    taken as it stands: a question may well begin with one.
    """
    try:
        question, answers = next(csv.reader([line], delimiter="\t", strict=True))
    except (csv.Error, ValueError):
        question, tab, answers = line.partition("\t")
        if not tab:
            return None
    return question, answers
