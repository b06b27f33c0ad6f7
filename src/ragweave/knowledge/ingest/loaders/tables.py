"""Files with one document per row: CSV, TSV, JSON lines, Parquet and Arrow."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.rows import SAMPLE_ROWS, Row, TableReader, is_header
from ragweave.knowledge.ingest.loaders.text import TextBudget, damaged_file, read_lines
from ragweave.knowledge.ingest_settings import TableSettings
from ragweave.types import Document, SourceFile

# One field may hold a whole book; Python's default limit of 128 KiB is one chapter.
_FIELD_LIMIT = 64 * 1024 * 1024
_SAMPLE_CHARACTERS = 2**16
_NO_TEXT = re.compile(r"binary|list<[^<>]*(?:float|double|halffloat)")  # pictures and vectors


# --- CSV and TSV ---


def read_table(file: SourceFile, tables: TableSettings) -> Iterator[Document]:
    """Read a ``.csv`` or ``.tsv`` file; see `TableReader`. Its first line is a header, unless it has numbers."""
    rows = table_rows(file.path)
    sample = list(islice(rows, SAMPLE_ROWS))
    if not sample:
        raise SourceError(f"The table {file.path} is empty: give it a first line that names its columns.")
    header = [name.strip() for name in sample[0][1]]
    if (len(sample) > 1 and is_header(header)) or {"text", "title"} & set(map(str.casefold, header)):
        del sample[0]
    else:
        header = [""] * len(header)
    reader = TableReader(file, tables, "Line")
    yield from reader.documents(
        Row(line, [(name, field if field.strip() else "") for name, field in zip(header, row, strict=True)])
        for line, row in chain(sample, rows)
    )
    reader.warn_of_columns()


def table_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read the fields of a table's rows with the number of the line in which each begins. Blank lines are skipped.

    Fields are separated by tabs in a ``.tsv`` file, otherwise by the character that splits the first lines into
    equally many fields: a comma, semicolon, tab or vertical bar. The header is the first row.
    """
    # This limit applies to the whole process, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_LIMIT))
    lines = read_lines(path)
    sample: list[tuple[int, str]] = []
    size = 0
    while size < _SAMPLE_CHARACTERS and (entry := next(lines, None)):
        sample.append(entry)
        size += len(entry[1])
    delimiter = ""
    if sample and (declared := re.fullmatch(r"sep=(.)\s*", sample[0][1])):  # a line for Excel
        delimiter = declared[1]
        del sample[0]
    if not delimiter:
        is_tsv = path.suffix.lower() == ".tsv" and bool(sample) and "\t" in sample[0][1]
        delimiter = "\t" if is_tsv else _delimiter([line for _, line in sample])
    width = 0
    read = _tab_separated if delimiter == "\t" else _separated
    for line, row in read(path, chain(sample, lines), delimiter):
        width = width or len(row)
        while len(row) > width and not row[-1].strip():
            del row[-1]
        if len(row) != width:
            raise SourceError(
                f"The row at line {line} of {path} has {len(row)} fields, the first line has {width}: put fields "
                "that hold the separator in quotation marks."
            )
        yield line, row


def _delimiter(lines: Sequence[str]) -> str:
    """The separator that gives all rows the same, largest number of fields; a comma if there is none."""

    def width(delimiter: str) -> int:
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            return 1
        # The last row may be cut.
        widths = {len(row) for row in rows[:-1] or rows}
        return widths.pop() if len(widths) == 1 else 1

    return max(",;\t|", key=width)


def _separated(
    path: Path, lines: Iterator[tuple[int, str]], delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    first = last = 0  # lines of the current row

    def content() -> Iterator[str]:
        nonlocal first, last
        for number, line in lines:
            first, last = first or number, number
            yield line

    try:
        for row in csv.reader(content(), delimiter=delimiter, strict=True):
            if row:
                yield first, row
            first = 0
    except csv.Error as error:
        raise SourceError(
            f"Line {last} of {path} cannot be read as a table ({error}): close every quotation mark, and write a "
            'quotation mark inside a field as "".'
        ) from error


def _tab_separated(
    path: Path, lines: Iterator[tuple[int, str]], delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """Read rows separated by tabs, one per line.

    The format has no quoting, and many writers quote all the same. A field counts as quoted if its quotation marks
    are complete. Fields that continue on the next line are joined only where neither line is a row by itself.
    """
    width = 0
    for number, line in lines:
        row = line.rstrip("\r\n").split(delimiter)
        if row == [""]:
            continue
        width = width or len(row)
        if len(row) != width and '"' in line:
            row = next(
                _separated(path, chain([(number, line)], _parts(lines, path, number, width)), delimiter)
            )[1]
        elif '"' in line:
            row = [_unquoted(field) for field in row]
        yield number, row


def _parts(lines: Iterator[tuple[int, str]], path: Path, first: int, width: int) -> Iterator[tuple[int, str]]:
    """The next lines of a row that began in line ``first``."""
    for number, line in lines:
        if line.count("\t") == width - 1:
            raise SourceError(
                f"The row at line {first} of {path} has an open quotation mark, or fewer fields than the {width} of "
                "the first line: correct it."
            )
        yield number, line


def _unquoted(field: str) -> str:
    inner = field[1:-1].replace('""', "")
    is_quoted = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner
    return field[1:-1].replace('""', '"') if is_quoted else field


# --- JSON lines ---


def read_jsonl(file: SourceFile, tables: TableSettings) -> Iterator[Document]:
    """Read JSON lines; see `TableReader`. KILT's knowledge source can be read as well."""
    reader = TableReader(file, tables, "Line")
    yield from reader.documents(
        Row(number, list(_parse(line, f"Line {number} of {file.path}").items()))
        for number, line in read_lines(file.path)
        if line.strip()
    )
    reader.warn_of_columns()


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where} is not valid JSON ({error}): write one JSON object per line.") from error
    if not isinstance(record, dict):
        raise SourceError(f"{where} is not an object: write one JSON object per line.")
    paragraphs = record.get("text")
    if "wikipedia_id" in record and isinstance(paragraphs, list):  # a page of KILT's knowledge source
        return {
            "id": record["wikipedia_id"],
            "title": record.get("wikipedia_title"),
            "text": "\n\n".join(str(paragraph).strip() for paragraph in paragraphs),
        }
    return record


# --- Parquet and Arrow ---


def read_parquet(file: SourceFile, tables: TableSettings) -> Iterator[Document]:
    """Read a Parquet file; see `TableReader`. Columns of bytes and of vectors are left out."""
    try:
        with pq.ParquetFile(file.path, memory_map=True) as content:
            read = partial(content.iter_batches, _batch_rows(content.metadata))
            yield from _documents(file, tables, content.schema_arrow, lambda names: read(columns=names))
    except (OSError, pa.ArrowException, MemoryError) as error:
        raise damaged_file(file.path, error) from error


def read_arrow(file: SourceFile, tables: TableSettings) -> Iterator[Document]:
    """Read an Arrow file, as the datasets library saves them, like a Parquet file."""
    try:
        with pa.memory_map(str(file.path)) as content, pa.ipc.open_stream(content) as batches:
            schema = batches.schema
            yield from _documents(file, tables, schema, lambda names: (one.select(names) for one in batches))
    except (OSError, pa.ArrowException, MemoryError) as error:
        raise damaged_file(file.path, error) from error


def _documents(
    file: SourceFile, tables: TableSettings, schema: pa.Schema, read: Callable[[list[str]], Iterator[Any]]
) -> Iterator[Document]:
    """Read the columns that can be written as text."""
    reader = TableReader(file, tables)
    columns = [field.name for field in schema if not _NO_TEXT.search(str(field.type))]
    reader.left_out |= dict.fromkeys(name for name in schema.names if name not in columns)
    yield from reader.documents(_rows(file.path, read(columns)))
    reader.warn_of_columns()


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """How many rows to decode at a time: a short dictionary can give each of them megabytes."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    chunks = (group.column(number) for group in groups for number in range(metadata.num_columns))
    largest = max((chunk.total_uncompressed_size for chunk in chunks), default=0)
    return min(256, max(8, 2**27 // max(largest, 1)))


def _rows(path: Path, batches: Iterator[Any]) -> Iterator[Row]:
    """The rows of batches, a few at a time, since a dictionary can give each of them the same megabytes."""
    budget = TextBudget(path)
    slices = (batch.slice(start, 16) for batch in batches for start in range(0, batch.num_rows, 16))
    for number, fields in enumerate((row for part in slices for row in part.to_pylist()), start=1):
        budget.spend(sum(1 + (len(value) if isinstance(value, str) else 8) for value in fields.values()))
        yield Row(number, list(fields.items()))
