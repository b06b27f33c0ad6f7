"""Tables of comma- or tab-separated values: a question a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ragweave.errors import DataError
from ragweave.evaluation.data.lines import data_errors
from ragweave.evaluation.data.record import Record
from ragweave.knowledge.ingest.loaders.table import table_rows


def from_table(path: Path) -> Iterator[Record]:
    """Read a table whose first line names its columns.

    Args:
        path: The file.

    Yields:
        A record a row.

    Raises:
        DataError: The file cannot be read, or is no table.
    """
    with data_errors():
        rows = table_rows(path)
        _, header = next(rows, (1, []))
        names = [name.strip() for name in header]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise DataError(f"The table {path} has two columns '{twice}': rename one of them.")
        for line, row in rows:
            # An empty field is nothing, as null is in other formats.
            fields = {name: field or None for name, field in zip(names, row, strict=True)}
            yield Record(f"line {line} of {path}", fields, is_text=True)
