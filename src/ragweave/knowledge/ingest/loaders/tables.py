"""Files with one document per row: CSV, TSV, JSON lines, Parquet and Arrow."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.text import damaged_file, read_lines, whole_text
from ragweave.knowledge.source_records import SourceFile
from ragweave.types import Document

# One field may hold a whole book; Python's own limit of 128 KiB is one chapter.
_FIELD_LIMIT = 64 * 1024 * 1024
_BATCH_ROWS = 1000
_COLUMNS = ("id", "title", "text")


def read_table(file: SourceFile) -> Iterator[Document]:
    """Read a ``.csv`` or ``.tsv`` file with the columns ``title``, ``text`` and optionally ``id``.

    Raises:
        SourceError: The file cannot be read, lacks a column, or has a row of another length.
    """
    rows = table_rows(file.path)
    _, header = next(rows, (1, None))
    if header is None:
        raise SourceError(
            f"The table {file.path} is empty: give it a first line with the columns title, text."
        )
    positions: dict[str, int] = {}
    for position, name in enumerate(header):
        positions.setdefault(name.strip().lower(), position)
    missing = [name for name in ("title", "text") if name not in positions]
    if missing:
        present = ", ".join(f"'{name}'" for name in header) or "none"
        raise SourceError(
            f"The table {file.path} lacks the column {' and '.join(missing)} (found: {present}): name its "
            "columns title and text in the first line."
        )
    for line, row in rows:
        document_id = row[positions["id"]].strip() if "id" in positions else ""
        yield Document(
            id=document_id or f"{file.name}:{line}",
            title=row[positions["title"]].strip(),
            text=row[positions["text"]],
            source=file.source,
            line=line,
        )


def table_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read the rows of a table, separated by tabs in a ``.tsv`` file and else by commas. Blank lines are skipped.

    Yields:
        The number of the row's first line, counted from 1, and the row's fields. The header is the first row.

    Raises:
        SourceError: The file cannot be read, an open quotation mark is never closed, or a row has another length than
            the first.
    """
    # This limit applies to the whole process, so it is only ever raised.
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
            'and write a quotation mark inside a field as "".'
        ) from error


# --- JSON lines ---


def read_jsonl(file: SourceFile) -> Iterator[Document]:
    """Read JSON lines with the keys ``text``, ``title`` and optionally ``id``, or those of KILT's knowledge source.

    Raises:
        SourceError: The file cannot be read, or a line is not an object with a text.
    """
    for number, line in read_lines(file.path):
        if not line.strip():
            continue
        where = f"Line {number} of {file.path}"
        record = _parse(line, where)
        document_id = record.get("id")
        yield Document(
            id=f"{file.name}:{number}" if document_id is None else _identifier(document_id, where),
            title=_string(record, "title", where).strip(),
            text=_string(record, "text", where),
            source=file.source,
            line=number,
        )


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where} is not valid JSON ({error}): write one JSON object per line.") from error
    if not isinstance(record, dict) or "text" not in record:
        raise SourceError(f"{where} is not an object with the key 'text': give it 'text' and 'title'.")
    paragraphs = record["text"]
    if "wikipedia_id" in record and isinstance(paragraphs, list):  # a page of KILT's knowledge source
        return {
            "id": record["wikipedia_id"],
            "title": record.get("wikipedia_title"),
            "text": "\n\n".join(str(paragraph).strip() for paragraph in paragraphs),
        }
    return record


def _string(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key, "")
    # A title may be null. A null text points to a mistake elsewhere.
    if value is None and key == "title":
        return ""
    if not isinstance(value, str):
        raise SourceError(f"{where} has a '{key}' that is not a string: put it in quotation marks.")
    return whole_text(value, key, where)


def _identifier(value: object, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise SourceError(
            f"{where} has an 'id' that is neither a string nor an integer: change it or remove it."
        )
    return whole_text(str(value), "id", where)


# --- Parquet and Arrow ---


def read_parquet(file: SourceFile) -> Iterator[Document]:
    """Read a Parquet file with the columns ``text`` and optionally ``title`` and ``id``; others are not loaded.

    Raises:
        SourceError: The file cannot be read, lacks the column ``text``, or has a row without text.
    """
    try:
        with pq.ParquetFile(file.path, memory_map=True) as content:
            names = _columns(file, content.schema_arrow.names)
            yield from _rows(file, content.iter_batches(batch_size=_BATCH_ROWS, columns=names))
    except (OSError, pa.ArrowException) as error:
        raise damaged_file(file.path, error) from error


def read_arrow(file: SourceFile) -> Iterator[Document]:
    """Read an Arrow file, as the datasets library saves them, with the same columns as a Parquet file.

    Raises:
        SourceError: The file cannot be read, lacks the column ``text``, or has a row without text.
    """
    try:
        with pa.memory_map(str(file.path)) as content, pa.ipc.open_stream(content) as reader:
            names = _columns(file, reader.schema.names)
            yield from _rows(file, (batch.select(names) for batch in reader))
    except (OSError, pa.ArrowException) as error:
        raise damaged_file(file.path, error) from error


def _columns(file: SourceFile, names: list[str]) -> list[str]:
    if "text" not in names:
        raise SourceError(
            f"The file {file.path} lacks the column text (found: {', '.join(names) or 'none'}): rename one to text."
        )
    return [name for name in _COLUMNS if name in names]


def _rows(file: SourceFile, batches: Iterator[Any]) -> Iterator[Document]:
    rows = (row for batch in batches for row in batch.to_pylist())
    for number, row in enumerate(rows, start=1):
        document_id, title, text = row.get("id"), row.get("title") or "", row["text"]
        if not isinstance(text, str) or not isinstance(title, str):
            raise SourceError(
                f"Row {number} of {file.path} has a title or text that is not a string: correct it."
            )
        yield Document(
            id=f"{file.name}:{number}" if document_id is None else str(document_id),
            title=title.strip(),
            text=text,
            source=file.source,
            line=number,
        )
