"""Passages in Parquet shards, by their row, reading the row groups and columns asked for and no more."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import IndexDataError
from ragweave.retrieval.index_protocol import INDEX_COLUMN
from ragweave.retrieval.passage_rows import check_columns
from ragweave.retrieval.vectors import matrix

# Decoded columns of row groups that are kept, in bytes: neighbouring questions often find the same ones.
KEPT_BYTES = 128 * 2**20


class ParquetRows:
    """One table over several Parquet files, in their order.

    Args:
        paths: The files, memory-mapped; only their footers are read here.

    Raises:
        IndexDataError: There is no file, or one of them is damaged or has other columns.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise IndexDataError("There are no Parquet files; check the data set's folder.")
        self._paths = list(paths)
        self._files = [_opened(path) for path in paths]
        names = self._files[0].schema_arrow.names
        check_columns(names, paths[0])
        for path, file in zip(paths, self._files, strict=True):
            if file.schema_arrow.names != names:
                raise IndexDataError(
                    f"{path} has the columns {', '.join(file.schema_arrow.names)}; expected those of "
                    f"{paths[0].name}, {', '.join(names)}."
                )
        self._text_columns = [name for name in names if name != INDEX_COLUMN]
        self._groups = [(f, g) for f, file in enumerate(self._files) for g in range(file.num_row_groups)]
        sizes = [self._files[f].metadata.row_group(g).num_rows for f, g in self._groups]
        self._starts: NDArray[np.int64] = np.cumsum([0, *sizes])
        self._kept: OrderedDict[tuple[int, str], Any] = OrderedDict()
        self._kept_bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def texts(self, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
        """See `PassageRows`."""
        values: dict[str, list[Any]] = {name: [None] * len(rows) for name in self._text_columns}
        for group, places in self._by_group(rows):
            for name, own in values.items():
                found = self._column(group, name).take(rows[places] - self._starts[group])
                for place, value in zip(places.tolist(), found.to_pylist(), strict=True):
                    own[place] = value
        return values

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `PassageRows`.

        Raises:
            IndexDataError: They are damaged, or not all of one dimension.
        """
        found: NDArray[np.float32] | None = None
        for group, places in self._by_group(rows):
            part = matrix(self._column(group, INDEX_COLUMN).take(rows[places] - self._starts[group]))
            if found is None:
                found = np.empty((len(rows), part.shape[1]), dtype=np.float32)
            if part.shape[1] != found.shape[1]:
                raise IndexDataError(
                    f"Vectors are of dimension {found.shape[1]}, and of {part.shape[1]} too."
                )
            found[places] = part
        return np.empty((0, 0), dtype=np.float32) if found is None else found

    def _by_group(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The row groups that rows lie in, each with the places of its own among them."""
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        for group in np.unique(groups).tolist():
            yield group, np.flatnonzero(groups == group)

    def _column(self, group: int, name: str) -> Any:
        key = (group, name)
        with self._lock:
            values = self._kept.pop(key, None)
            if values is None:
                values = self._read(group, name)
                self._kept_bytes += values.nbytes
            self._kept[key] = values  # now the last in line to be dropped
            while self._kept_bytes > KEPT_BYTES:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
            return values

    def _read(self, group: int, name: str) -> Any:
        import pyarrow as pa

        file, number = self._groups[group]
        try:
            return self._files[file].read_row_group(number, columns=[name]).column(0).combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise IndexDataError(
                f"{self._paths[file]} is damaged: column {name} of row group {number} cannot be read. Fetch it "
                "again."
            ) from error


def _opened(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise IndexDataError(f"{path} is no whole Parquet file: fetch it again.") from error
