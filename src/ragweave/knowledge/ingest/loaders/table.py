"""Tables of comma- or tab-separated values: one document per row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.decoding import read_lines
from ragweave.knowledge.source_records import SourceFile
from ragweave.types import Document

# A whole book in one field is well below this; Python's own limit of 128 KiB is one chapter.
_FIELD_LIMIT = 64 * 1024 * 1024


def read_table(file: SourceFile) -> Iterator[Document]:
    """Read a ``.csv`` or ``.tsv`` file with the columns ``title``, ``text`` and, perhaps, ``id``.

    Args:
        file: The file.

    Yields:
        A document per row.

    Raises:
        SourceError: The file cannot be read, lacks a column, or has a row that does not fit its columns.
    """
    rows = table_rows(file.path)
    _, header = next(rows, (1, None))
    if header is None:
        raise SourceError(
            f"The table {file.path} is empty: give it a first line with the columns title, text."
        )
    columns = _columns(file, header)
    for line, row in rows:
        yield _document(file, columns, row, line)


def table_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read the rows of a table, separated by tabs where its ending is ``.tsv`` and by commas otherwise.

    Args:
        path: The file.

    Yields:
        The line that the row begins in, from 1 on, and its fields, of the first row those of the header. Blank lines
        are no rows.

    Raises:
        SourceError: The file cannot be read, has a quotation mark that is not closed, or a row of another length than
            the first.
    """
    # The limit is one for the whole process: it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_LIMIT))
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = csv.reader((line for _, line in read_lines(path)), delimiter=delimiter, strict=True)
    line, width = 1, 0
    try:
        for row in rows:
            width = width or len(row)
            if row and len(row) != width:
                raise SourceError(
                    f"The row at line {line} of {path} has {len(row)} fields, the first line has {width}: put "
                    "fields that hold the separator in quotation marks."
                )
            if row:
                yield line, row
            line = rows.line_num + 1
    except csv.Error as error:
        raise SourceError(
            f"Line {rows.line_num} of {path} cannot be read as a table ({error}): close every quotation mark, "
            'and write one inside of a field as "".'
        ) from error


def _columns(file: SourceFile, header: list[str]) -> dict[str, int]:
    """Map the names of the columns that are used to their positions."""
    positions: dict[str, int] = {}
    for position, name in enumerate(header):
        positions.setdefault(name.strip().lower(), position)
    missing = [name for name in ("title", "text") if name not in positions]
    if missing:
        found = ", ".join(f"'{name}'" for name in header) or "none"
        raise SourceError(
            f"The table {file.path} lacks the column {' and '.join(missing)} (found: {found}): name its "
            "columns title and text in the first line."
        )
    return {name: positions[name] for name in ("id", "title", "text") if name in positions}


def _document(file: SourceFile, columns: dict[str, int], row: list[str], line: int) -> Document:
    document_id = row[columns["id"]].strip() if "id" in columns else ""
    return Document(
        id=document_id or f"{file.name}:{line}",
        title=row[columns["title"]].strip(),
        text=row[columns["text"]],
        source=file.source,
        line=line,
    )
