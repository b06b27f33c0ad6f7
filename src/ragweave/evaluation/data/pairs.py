"""A file of questions and one of answers, line by line: ``.source`` and ``.target``, or the ``ans`` gold file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from ragweave.errors import DataError
from ragweave.evaluation.data.lines import all_lines
from ragweave.evaluation.data.record import Record


def from_pairs(questions: Path, answers: Path) -> Iterator[Record]:
    """Read two files side by side; blank lines count.

    Args:
        questions: The file of questions.
        answers: The file of answers.

    Yields:
        A record a line.

    Raises:
        DataError: A file cannot be read, or they have other numbers of lines.
    """
    for number, (own, answer) in enumerate(zip_longest(all_lines(questions), all_lines(answers)), start=1):
        if own is None or answer is None:
            longer, shorter = (answers, questions) if own is None else (questions, answers)
            raise DataError(
                f"{shorter} ends before line {number} of {longer}: give one answer for each question, line by line."
            )
        yield Record(own[0], {"question": own[1], "answers": [answer[1]]})
