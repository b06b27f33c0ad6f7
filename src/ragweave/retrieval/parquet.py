"""Passages in Parquet shards, by their row, reading the row groups and columns asked for and no more."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from ragweave.errors import IndexDataError
from ragweave.retrieval.columns import VECTOR_COLUMN, check_columns, matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Decoded columns of row groups that are kept, in bytes: neighbouring questions often find the same ones.
_KEPT_BYTES = 256 * 2**20


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
        self.column_names: list[str] = self._files[0].schema_arrow.names
        for path, file in zip(paths, self._files, strict=True):
            if file.schema_arrow.names != self.column_names:
                raise IndexDataError(
                    f"{path} has the columns {', '.join(file.schema_arrow.names)}; expected those of the "
                    f"first shard, {', '.join(self.column_names)}."
                )
        check_columns(self.column_names, paths[0])
        self._groups = [(f, g) for f, file in enumerate(self._files) for g in range(file.num_row_groups)]
        sizes = [self._files[f].metadata.row_group(g).num_rows for f, g in self._groups]
        self._starts: NDArray[np.int64] = np.cumsum([0, *sizes])
        self._kept: OrderedDict[tuple[int, str], Any] = OrderedDict()
        self._lock = Lock()  # for the files, too, of which each has one position

    def __len__(self) -> int:
        return int(self._starts[-1])

    def texts(self, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
        """Values of all columns but the vectors.

        Args:
            rows: Row numbers, (M,), from 0 to N-1.

        Returns:
            For each column, its M values.
        """
        columns = [name for name in self.column_names if name != VECTOR_COLUMN]
        values: dict[str, list[Any]] = {name: [None] * len(rows) for name in columns}
        for group, places in self._by_group(rows):
            for name in columns:
                found = self._column(group, name).take(rows[places] - self._starts[group])
                for place, value in zip(places.tolist(), found.to_pylist(), strict=True):
                    values[name][place] = value
        return values

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of rows.

        Args:
            rows: Row numbers, (M,), at least one, from 0 to N-1.

        Returns:
            Their vectors, (M, D).

        Raises:
            IndexDataError: They are damaged, or not all of one length.
        """
        places, parts = [], []
        for group, own in self._by_group(rows):
            places.append(own)
            parts.append(matrix(self._column(group, VECTOR_COLUMN).take(rows[own] - self._starts[group])))
        found = np.empty((len(rows), parts[0].shape[1]), dtype=np.float32)
        for own, part in zip(places, parts, strict=True):
            if part.shape[1] != found.shape[1]:
                raise IndexDataError(
                    f"The passages' vectors are of dimension {found.shape[1]} and of {part.shape[1]}."
                )
            found[own] = part
        return found

    def _by_group(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The row groups that rows lie in, and for each the places of its rows among the given."""
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        for group in np.unique(groups).tolist():
            yield group, np.flatnonzero(groups == group)

    def _column(self, group: int, name: str) -> Any:
        with self._lock:
            key = (group, name)
            values = self._kept.pop(key, None)
            if values is None:
                values = self._read(group, name)
            self._kept[key] = values  # now the last to be dropped
            while sum(kept.nbytes for kept in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
            return values

    def _read(self, group: int, name: str) -> Any:
        import pyarrow as pa

        file, number = self._groups[group]
        try:
            return self._files[file].read_row_group(number, columns=[name]).column(0).combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise IndexDataError(
                f"{self._paths[file]} is damaged: {name} of row group {number} cannot be read. Fetch it again."
            ) from error


def _opened(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise IndexDataError(f"{path} is no whole Parquet file: fetch it again.") from error
