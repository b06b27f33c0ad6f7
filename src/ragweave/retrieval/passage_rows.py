"""Passages in files by row number: data sets of the datasets library, and Parquet shards.

Notation used for tensor shapes: M rows, N passages, D vector size.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Value, load_from_disk
from datasets.search import FaissIndex
from numpy.typing import NDArray

from ragweave.errors import IndexDataError
from ragweave.retrieval.index_protocol import INDEX_COLUMN, REQUIRED_COLUMNS

# Decoded columns of row groups to cache, in bytes: neighbouring questions often retrieve from the same groups.
CACHED_BYTES = 128 * 2**20


class PassageRows(Protocol):
    """The passages of a FAISS index, by row number."""

    def __len__(self) -> int: ...

    def texts(self, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
        """The values of every column but the vectors' in M rows (0 to N-1)."""
        ...

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of M rows (0 to N-1, at least one), (M, D).

        Raises `IndexDataError` if the column holds something else, or vectors of several lengths.
        """
        ...


class DatasetRows:
    """Satisfies `PassageRows` with a data set, or with a selection or a shuffled view of one.

    The library's own look-up gathers rows into a new table and decodes that, which takes about as long as the search
    (`benchmarks/retrieval.py`). Plain columns are read from the Arrow table instead, a row at a time; only
    columns that need decoding (images, say) go through the library.
    """

    def __init__(self, dataset: Dataset) -> None:
        row_numbers = _row_numbers(dataset)
        if row_numbers is _UNKNOWN:
            dataset, row_numbers = dataset.flatten_indices(), None
        self._row_numbers = row_numbers
        self._columns = [name for name in dataset.column_names if name != INDEX_COLUMN]
        plain = [name for name in self._columns if isinstance(dataset.features[name], Value)]
        decoded = [name for name in self._columns if name not in plain]
        self._decoded = dataset.with_format(None).select_columns(decoded) if decoded else None
        table = dataset.data.table
        self._numbers = {name: table.schema.get_field_index(name) for name in (*plain, INDEX_COLUMN)}
        self._batches = table.to_batches()  # slices of the table: no copy
        self._starts: NDArray[np.int64] = np.cumsum([0, *(len(batch) for batch in self._batches)])
        self._length = len(dataset)

    def __len__(self) -> int:
        return self._length

    def texts(self, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
        """See `PassageRows`."""
        located = self._located(rows)
        values = {
            name: [batch.column(number)[row].as_py() for batch, row in located]
            for name, number in self._numbers.items()
            if name != INDEX_COLUMN
        }
        if self._decoded is not None:
            values |= self._decoded[rows.tolist()]
        return {name: values[name] for name in self._columns}

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `PassageRows`."""
        number = self._numbers[INDEX_COLUMN]
        parts = [batch.column(number)[row].values for batch, row in self._located(rows)]
        try:
            return np.stack(
                [np.asarray(part.to_numpy(zero_copy_only=False), dtype=np.float32) for part in parts]
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise IndexDataError(
                f"The column '{INDEX_COLUMN}' does not hold vectors of one length; its type is "
                f"{self._batches[0].schema.field(number).type}."
            ) from error

    def _located(self, rows: NDArray[np.int64]) -> list[tuple[Any, int]]:
        """For each of M rows, the record batch that holds it and its position there."""
        if self._row_numbers is not None:
            rows = self._row_numbers.take(rows).to_numpy().astype(np.int64)
        batches = np.searchsorted(self._starts, rows, side="right") - 1
        positions = rows - self._starts[batches]
        return [
            (self._batches[batch], row)
            for batch, row in zip(batches.tolist(), positions.tolist(), strict=True)
        ]


_UNKNOWN: Any = object()


def _row_numbers(dataset: Dataset) -> Any:
    """Row numbers in the table of a selection or a shuffled view, ``None`` for the whole table.

    The library has no public way to read them. ``flatten_indices``, the workaround, copies all passages.
    """
    indices = getattr(dataset, "_indices", _UNKNOWN)
    return indices if indices is None or indices is _UNKNOWN else indices.table[0]


def with_index(dataset: Dataset, index: Any) -> Dataset:
    """A shallow copy of a data set that carries a FAISS index on its vectors, or none if ``index`` is ``None``.

    The public way, ``load_faiss_index``, reads the whole file into memory a second time.
    """
    twin = copy.copy(dataset)
    twin._indexes = {} if index is None else {INDEX_COLUMN: FaissIndex(custom_index=index)}
    return twin


class SavedRows(DatasetRows):
    """A split in a folder that ``save_to_disk`` of the datasets library wrote, memory-mapped.

    The folder is that of a data set or of a dictionary of splits. Raises `IndexDataError` if the split is missing,
    or the folder is damaged or lacks columns.
    """

    def __init__(self, folder: Path, split: str) -> None:
        path = folder / split if (folder / "dataset_dict.json").is_file() else folder
        if not path.is_dir():
            splits = sorted(child.name for child in folder.iterdir() if child.is_dir())
            raise IndexDataError(f"There is no split {split!r} in {folder}; it has {', '.join(splits)}.")
        dataset = load_saved(path)
        if dataset.split is not None and str(dataset.split) != split:
            raise IndexDataError(
                f"{folder} holds the split '{dataset.split}', but dataset_split is {split!r}."
            )
        check_columns(dataset.column_names, path)
        self.dataset = dataset
        super().__init__(dataset.with_format(None))

    @staticmethod
    def is_folder_of(folder: Path) -> bool:
        """Whether ``save_to_disk`` wrote a folder."""
        return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def load_saved(folder: Path) -> Dataset:
    """Load a data set that ``save_to_disk`` wrote; `IndexDataError` if the folder is something else or damaged."""
    try:
        return load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise IndexDataError(
            f"{folder} is not a complete data set saved with dataset.save_to_disk: {error}"
        ) from error


class ParquetRows:
    """Satisfies `PassageRows` with mapped Parquet files; reads only the requested row groups and columns.

    Raises `IndexDataError` if there is no file, or one of them is damaged or has other columns.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise IndexDataError("There are no Parquet files; check the data set's folder.")
        self._paths = list(paths)
        self._files = [_open_parquet(path) for path in paths]
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
        self._cache: OrderedDict[tuple[int, str], Any] = OrderedDict()
        self._cached_bytes = 0
        self._lock = Lock()

    @cached_property
    def dataset(self) -> Dataset:
        """The passages as a data set. The datasets library converts the files into its cache at the first access."""
        return Dataset.from_parquet([str(path) for path in self._paths])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def texts(self, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
        """See `PassageRows`."""
        columns: dict[str, list[Any]] = {name: [None] * len(rows) for name in self._text_columns}
        for group, positions in self._by_group(rows):
            for name, values in columns.items():
                part = self._column(group, name).take(rows[positions] - self._starts[group])
                for position, value in zip(positions.tolist(), part.to_pylist(), strict=True):
                    values[position] = value
        return columns

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `PassageRows`."""
        vectors: NDArray[np.float32] | None = None
        for group, positions in self._by_group(rows):
            part = matrix(self._column(group, INDEX_COLUMN).take(rows[positions] - self._starts[group]))
            if vectors is None:
                vectors = np.empty((len(rows), part.shape[1]), dtype=np.float32)
            if part.shape[1] != vectors.shape[1]:
                raise IndexDataError(
                    f"Some vectors are of dimension {vectors.shape[1]}, others of {part.shape[1]}."
                )
            vectors[positions] = part
        return np.empty((0, 0), dtype=np.float32) if vectors is None else vectors

    def _by_group(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The row groups of some rows, each with the positions of its rows among them."""
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        for group in np.unique(groups).tolist():
            yield group, np.flatnonzero(groups == group)

    def _column(self, group: int, name: str) -> Any:
        key = (group, name)
        with self._lock:
            values = self._cache.pop(key, None)
            if values is None:
                values = self._read(group, name)
                self._cached_bytes += values.nbytes
            self._cache[key] = values  # most recently used
            while self._cached_bytes > CACHED_BYTES:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
            return values

    def _read(self, group: int, name: str) -> Any:
        file, number = self._groups[group]
        try:
            return self._files[file].read_row_group(number, columns=[name]).column(0).combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise IndexDataError(
                f"{self._paths[file]} is damaged: column {name} of row group {number} cannot be read. Download it "
                "again."
            ) from error


def _open_parquet(path: Path) -> Any:
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise IndexDataError(f"{path} is not a complete Parquet file: download it again.") from error


def matrix(lists: Any) -> NDArray[np.float32]:
    """A column of M vectors, an Arrow array of lists, as (M, D); `IndexDataError` if it holds anything else."""
    try:
        lengths = pc.list_value_length(lists).unique().to_pylist()
        values = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
    except (pa.ArrowException, ValueError) as error:
        raise IndexDataError(f"The column '{INDEX_COLUMN}' holds {lists.type} instead of vectors.") from error
    if len(lengths) != 1 or lengths[0] is None:
        raise IndexDataError(f"The vectors in column '{INDEX_COLUMN}' are missing or of several lengths.")
    return values.reshape(len(lists), -1)


def check_columns(names: Sequence[str], source: Path | str) -> None:
    """Check that passages have the required columns. Raises `IndexDataError` if some are missing."""
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    if missing:
        raise IndexDataError(
            f"{source} lacks the column(s) {', '.join(missing)}; it has {', '.join(names)}. Passages need title, "
            "text and embeddings."
        )
