"""Tables of comma- or tab-separated values: one document per row."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from ragweave.errors import SourceError
from ragweave.knowledge.passages import Document
from ragweave.knowledge.readers.decoding import read_lines
from ragweave.knowledge.readers.files import SourceFile

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
    # The limit is one for the whole process: it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_LIMIT))
    delimiter = "\t" if file.path.suffix.lower() == ".tsv" else ","
    rows = csv.reader((line for _, line in read_lines(file.path)), delimiter=delimiter, strict=True)
    header = _next_row(file, rows)
    if header is None:
        raise SourceError(
            f"The table {file.path} is empty: give it a first line with the columns title, text."
        )
    columns = _columns(file, header)
    first_line = rows.line_num + 1
    while (row := _next_row(file, rows)) is not None:
        if row:  # a blank line is no row
            yield _document(file, columns, len(header), row, first_line)
        first_line = rows.line_num + 1


def _next_row(file: SourceFile, rows: Iterator[list[str]]) -> list[str] | None:
    try:
        return next(rows, None)
    except csv.Error as error:
        line = getattr(rows, "line_num", 0)
        raise SourceError(
            f"Line {line} of {file.path} cannot be read as a table ({error}): close every quotation mark, "
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


def _document(file: SourceFile, columns: dict[str, int], width: int, row: list[str], line: int) -> Document:
    if len(row) != width:
        raise SourceError(
            f"The row at line {line} of {file.path} has {len(row)} fields, the first line has {width}: put "
            "fields that hold the separator in quotation marks."
        )
    document_id = row[columns["id"]].strip() if "id" in columns else ""
    return Document(
        id=document_id or f"{file.name}:{line}",
        title=row[columns["title"]].strip(),
        text=row[columns["text"]],
        source=file.source,
        line=line,
    )
