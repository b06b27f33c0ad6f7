"""Parquet files, as data sets on the hub are stored: a question a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ragweave.errors import DataError
from ragweave.evaluation.data.record import Record

_ROWS = 1000


def from_parquet(path: Path) -> Iterator[Record]:
    """Read a Parquet file, a thousand rows at a time.

    Args:
        path: The file.

    Yields:
        A record a row.

    Raises:
        DataError: The file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path, memory_map=True) as content:
            for batch in content.iter_batches(batch_size=_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(f"row {number} of {path}", fields)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is no whole Parquet file ({error}): fetch it again.") from error
