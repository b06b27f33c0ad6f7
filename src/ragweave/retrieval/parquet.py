"""Rows of Parquet shards by their number, reading the row groups and columns asked for and no more."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragweave.errors import IndexDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Row groups that are kept decoded: neighbouring questions often find the same ones.
_KEPT_ROW_GROUPS = 16


class ParquetRows:
    """One table over several Parquet files, in their order.

    Args:
        paths: The files, memory-mapped; only their footers are read here.

    Raises:
        IndexDataError: There is no file, or one of them is damaged or has other columns.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not paths:
            raise IndexDataError("There are no Parquet files; check the data set's folder.")
        self._files = []
        for path in paths:
            try:
                self._files.append(pq.ParquetFile(path, memory_map=True))
            except (OSError, pa.ArrowException) as error:
                raise IndexDataError(f"{path} is no whole Parquet file: fetch it again.") from error
        self.column_names: list[str] = self._files[0].schema_arrow.names
        for path, file in zip(paths, self._files, strict=True):
            if file.schema_arrow.names != self.column_names:
                raise IndexDataError(
                    f"{path} has the columns {', '.join(file.schema_arrow.names)}; expected those of the "
                    f"first shard, {', '.join(self.column_names)}."
                )
        self._groups = [(f, g) for f, file in enumerate(self._files) for g in range(file.num_row_groups)]
        sizes = [self._files[f].metadata.row_group(g).num_rows for f, g in self._groups]
        self._starts: NDArray[np.int64] = np.cumsum([0, *sizes])
        self._read = lru_cache(maxsize=_KEPT_ROW_GROUPS)(self._read_group)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: NDArray[np.int64], columns: Sequence[str]) -> dict[str, list[Any]]:
        """Values of some columns in some rows.

        Args:
            rows: Row numbers, (M,), from 0 to N-1.
            columns: Names of columns.

        Returns:
            For each column, its M values in the order of ``rows``.
        """
        values: dict[str, list[Any]] = {name: [None] * len(rows) for name in columns}
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        for group in np.unique(groups).tolist():
            places = np.flatnonzero(groups == group)
            inside = rows[places] - self._starts[group]
            for name in columns:
                found = self._read(group, name).take(inside)
                for place, value in zip(places.tolist(), found.to_pylist(), strict=True):
                    values[name][place] = value
        return values

    def column(self, name: str) -> NDArray[np.float32]:
        """A whole column of vectors, (N, D)."""
        parts = [self._read_group(group, name) for group in range(len(self._groups))]
        return np.concatenate([_matrix(part) for part in parts])

    def _read_group(self, group: int, name: str) -> Any:
        file, number = self._groups[group]
        return self._files[file].read_row_group(number, columns=[name]).column(0).combine_chunks()


def _matrix(lists: Any) -> NDArray[np.float32]:
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(len(lists), -1)
