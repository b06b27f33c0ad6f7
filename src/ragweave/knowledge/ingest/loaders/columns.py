"""Parquet files, and data sets that the datasets library saved: one document a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.office import unreadable
from ragweave.knowledge.source_records import SourceFile
from ragweave.types import Document

_ROWS = 1000


def read_parquet(file: SourceFile) -> Iterator[Document]:
    """Read a Parquet file with the columns ``text`` and, perhaps, ``title`` and ``id``; no other is looked at.

    Raises:
        SourceError: The file cannot be read, lacks the column, or has a row whose text is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file.path, memory_map=True) as content:
            names = _columns(file, content.schema_arrow.names)
            yield from _rows(file, content.iter_batches(batch_size=_ROWS, columns=names))
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file.path, error) from error


def read_arrow(file: SourceFile) -> Iterator[Document]:
    """Read an Arrow file of a data set's folder, with the same columns.

    Raises:
        SourceError: The file cannot be read, lacks the column, or has a row whose text is none.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(file.path)) as content, pa.ipc.open_stream(content) as reader:
            names = _columns(file, reader.schema.names)
            yield from _rows(file, (batch.select(names) for batch in reader))
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file.path, error) from error


def _columns(file: SourceFile, names: list[str]) -> list[str]:
    if "text" not in names:
        raise SourceError(
            f"The file {file.path} lacks the column text (found: {', '.join(names) or 'none'}): rename one to text."
        )
    return [name for name in ("id", "title", "text") if name in names]


def _rows(file: SourceFile, batches: Iterator[Any]) -> Iterator[Document]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            if not isinstance(row["text"], str) or not isinstance(row.get("title") or "", str):
                raise SourceError(
                    f"Row {number} of {file.path} has a title or a text that is no text: mend it."
                )
            own = row.get("id")
            yield Document(
                id=f"{file.name}:{number}" if own is None else str(own),
                title=(row.get("title") or "").strip(),
                text=row["text"],
                source=file.source,
                line=number,
            )
