"""JSON lines: an object for every question."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ragweave.errors import DataError
from ragweave.evaluation.data.lines import lines_of
from ragweave.evaluation.data.record import Record


def from_json_lines(path: Path) -> Iterator[Record]:
    """Read a file of JSON lines; blank lines are passed over.

    Args:
        path: The file.

    Yields:
        A record a line.

    Raises:
        DataError: The file cannot be read, or a line is no object.
    """
    for where, line in lines_of(path):
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"The {where} is not valid JSON ({error}): write one object a line.") from error
        if not isinstance(fields, dict):
            raise DataError(f"The {where} is not a JSON object: write one object a line.")
        yield Record(where, fields)
