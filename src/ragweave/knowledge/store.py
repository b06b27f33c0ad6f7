"""The files of segments and versions: passages as Arrow, vectors and rows as numpy.

Everything is written through ordinary file objects, never through a memory map: a disk that fills is then an
exception here, not a signal that ends the process.

Notation used for tensor shapes: N passages, D vector size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import KnowledgeBaseError
from ragweave.types import Passage

COLUMNS = tuple(field.name for field in fields(Passage))
"""The columns of the passages' table, which are the attributes of a passage."""

NUMBERS = frozenset({"start", "end", "line", "page"})
"""Those of them that are whole numbers; all others are texts."""

SHARD = 10_000
"""How many passages are in memory at a time while a knowledge base is built."""


class PassageTable:
    """The passages of a version, memory-mapped: only what is looked at is read.

    Args:
        path: The Arrow IPC file.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        try:
            self._source = pa.memory_map(str(path))
            reader = pa.ipc.open_file(self._source)
            self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except (OSError, pa.ArrowException) as error:
            raise KnowledgeBaseError(damaged(path)) from error
        if tuple(reader.schema.names) != COLUMNS:
            raise KnowledgeBaseError(damaged(path))
        # Where each batch begins, and after the last one where the table ends.
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> Passage:
        if not 0 <= row < len(self):
            raise IndexError(f"There is no passage {row}: rows run from 0 to {len(self) - 1}.")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        batch, position = self._batches[number], row - int(self._starts[number])
        return Passage(*(column[position].as_py() for column in batch.columns))

    def take(self, rows: NDArray[np.int64]) -> list[Passage]:
        """Look up the passages of M rising rows."""
        import pyarrow as pa

        ends = np.searchsorted(rows, self._starts)
        found: list[Passage] = []
        for batch, start, first, last in zip(
            self._batches, self._starts[:-1], ends[:-1], ends[1:], strict=True
        ):
            if first < last:
                own = batch.take(pa.array(rows[first:last] - start))
                columns = (column.to_pylist() for column in own.columns)
                found.extend(Passage(*values) for values in zip(*columns, strict=True))
        return found

    def shards(self, start: int = 0) -> Iterator[list[Passage]]:
        """The passages from a row on, as many at a time as a shard has."""
        for first in range(start, len(self), SHARD):
            yield self.take(np.arange(first, min(first + SHARD, len(self))))

    def rows_with(self, column: str, values: Collection[str]) -> list[int]:
        """Find the rows whose value in a column is one of these, in rising order."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = pa.array(sorted(values), pa.string())
        rows: list[int] = []
        for start, batch in zip(self._starts, self._batches, strict=False):
            found = pc.is_in(batch[column], value_set=wanted)
            rows.extend(int(start) + position for position in pc.indices_nonzero(found).to_pylist())
        return rows

    def distinct(self, column: str, without: Collection[int] = ()) -> set[str]:
        """The values of a column, but for those of some rows."""
        import pyarrow.compute as pc

        gone = np.zeros(len(self), dtype=bool)
        gone[list(without)] = True
        values: set[str] = set()
        for start, batch in zip(self._starts, self._batches, strict=False):
            own = batch[column].filter(_arrow_mask(~gone[start : start + len(batch)]))
            values.update(pc.unique(own).to_pylist())
        return values


def _arrow_mask(kept: NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return pa.array(kept)


def write_passages(path: Path, shards: Iterable[Sequence[Passage]]) -> None:
    """Write passages, a batch of the file for every shard.

    Args:
        path: The file to make.
        shards: The passages.
    """
    import pyarrow as pa

    schema = pa.schema([(name, pa.int64() if name in NUMBERS else pa.string()) for name in COLUMNS])
    with durable(path) as file, pa.ipc.new_file(file, schema) as writer:
        for shard in shards:
            columns = [[getattr(passage, name) for passage in shard] for name in COLUMNS]
            arrays = [pa.array(column, own.type) for column, own in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def write_vectors(
    path: Path, shards: Iterable[NDArray[np.float32]], count: int, dimension: int, *, begun: int = 0
) -> None:
    """Write vectors as one numpy array, each shard safe on the disk before the next is made.

    Args:
        path: The file to make, or to go on with.
        shards: The vectors that are still missing, each shard of shape (any, D).
        count: How many there are altogether, N.
        dimension: D.
        begun: How many are in the file already.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype("<f4")), "fortran_order": False}
    if not begun:
        path.unlink(missing_ok=True)  # what an interruption has left of a first shard
    with path.open("r+b" if begun else "xb") as file:
        if begun:
            file.truncate(_read_header(file)[0] + 4 * dimension * begun)
            file.seek(0, os.SEEK_END)
        else:
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (count, dimension)})
        for shard in shards:
            file.write(np.ascontiguousarray(shard, dtype="<f4").data)
            _flush(file)
        _flush(file)


def vectors_written(path: Path) -> int:
    """How many vectors an interrupted `write_vectors` has left in a file, in whole shards."""
    try:
        with path.open("rb") as file:
            start, dimension = _read_header(file)
            return (path.stat().st_size - start) // (4 * dimension) // SHARD * SHARD
    except (OSError, ValueError):
        return 0  # none has been begun, or not even its header is whole


def _read_header(file: BinaryIO) -> tuple[int, int]:
    """Where the vectors of a file begin, and D."""
    np.lib.format.read_magic(file)
    (_, dimension), _, _ = np.lib.format.read_array_header_1_0(file)
    return file.tell(), dimension


def write_array(path: Path, values: NDArray[Any]) -> None:
    """Write a numpy array."""
    with durable(path) as file:
        np.lib.format.write_array(file, values, version=(1, 0), allow_pickle=False)


@contextmanager
def array_writer(path: Path, kind: np.dtype[Any], count: int) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Write a numpy array of one dimension and so many values, in parts.

    Yields:
        A function that writes the next part.
    """
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (count,)}
    with durable(path) as file:
        np.lib.format.write_array_header_1_0(file, header)

        def write(part: NDArray[Any]) -> None:
            file.write(np.ascontiguousarray(part, dtype=kind).data)

        yield write


def read_array(path: Path, kind: type[np.generic]) -> NDArray[Any]:
    """Map a numpy array of one dimension into memory.

    Raises:
        KnowledgeBaseError: The file is damaged.
    """
    values = _mapped(path)
    if values.dtype != kind or values.ndim != 1:
        raise KnowledgeBaseError(damaged(path))
    return values


def read_vectors(path: Path) -> NDArray[np.float32]:
    """Map the vectors of a version into memory, shape (N, D).

    Raises:
        KnowledgeBaseError: The file is damaged.
    """
    vectors = _mapped(path)
    if vectors.dtype != np.float32 or vectors.ndim != 2:
        raise KnowledgeBaseError(damaged(path))
    return vectors


def _mapped(path: Path) -> NDArray[Any]:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy lets errors of its parser through where a header is damaged
        raise KnowledgeBaseError(damaged(path)) from error
    if not isinstance(values, np.ndarray):
        raise KnowledgeBaseError(damaged(path))
    return values


def write_text(path: Path, text: str) -> None:
    """Write a small file of UTF-8."""
    with durable(path) as file:
        file.write(text.encode("utf-8"))


def replace_text(path: Path, text: str) -> None:
    """Write a small file of UTF-8 in place of another, in one step: a reader sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # of a process of the same number that was killed
    try:
        write_text(temporary, text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """Open a new file whose bytes are on the disk when it is left."""
    with path.open("xb") as file:
        yield file
        _flush(file)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power, where the system can."""
    if os.name == "nt":  # pragma: no cover
        return  # Windows does not open folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def damaged(path: Path) -> str:
    """What is said of a file that cannot be read."""
    return f"The file {path} is missing or damaged: build the knowledge base again with --overwrite."
