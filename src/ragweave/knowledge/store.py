"""The files of segments and versions: passages as Arrow, vectors and other arrays as numpy.

Files are written through ordinary file objects and never through a memory map: on a full disk, a write then raises an
exception, where a memory map would end the process by a signal. They are read through memory maps that keep no file
open, so that any number of segments needs no descriptor.

Notation used for tensor shapes: M rows, N passages, D vector size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ragweave.errors import KnowledgeBaseError, too_many_files
from ragweave.types import Passage

COLUMNS = tuple(field.name for field in fields(Passage))
"""The columns of the table of passages: the attributes of `Passage`."""

NUMBERS = frozenset({"start", "end", "line", "page", "slide", "table_row"})
"""The columns of whole numbers; all others are texts."""

ADVICE = (
    "'ragweave info KB --verify' checks all files and says whether an older version is intact. Otherwise, restore "
    "the file from a copy, or build the knowledge base again with --overwrite."
)
"""What to do about a damaged file."""

_SCHEMA = pa.schema([(name, pa.int64() if name in NUMBERS else pa.string()) for name in COLUMNS])

SHARD = 10_000  # how many passages are in memory at a time during a build


class PassageTable:
    """The passages of a segment, memory-mapped: only what is looked up is read from disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        content = map_file(path)
        try:
            reader = pa.ipc.open_file(content)
            if not reader.schema.equals(_SCHEMA):
                raise damaged(path)
            self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            for batch in self._batches:
                _check_bounds(batch)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise damaged(path) from error
        self.table = pa.Table.from_batches(self._batches, _SCHEMA)
        # The first row of each batch, and the end of the last one.
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> Passage:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        batch, position = self._batches[number], row - int(self._starts[number])
        with self._decoding():
            return Passage(*(column[position].as_py() for column in batch.columns))

    def take(self, rows: NDArray[np.int64]) -> list[Passage]:
        """The passages of M ascending rows."""
        # Batch by batch, since Arrow's take on a whole table copies all of its texts.
        ends = np.searchsorted(rows, self._starts)
        passages: list[Passage] = []
        for batch, start, first, last in zip(
            self._batches, self._starts[:-1], ends[:-1], ends[1:], strict=True
        ):
            if first < last:
                part = batch.take(pa.array(rows[first:last] - start))
                with self._decoding():
                    columns = [column.to_pylist() for column in part.columns]
                passages.extend(Passage(*values) for values in zip(*columns, strict=True))
        return passages

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError as error:
            raise damaged(self._path) from error

    def shards(self, start: int = 0) -> Iterator[list[Passage]]:
        """The passages from a row on, a shard at a time."""
        yield from self.take_shards(np.arange(start, len(self)))

    def take_shards(self, rows: NDArray[np.int64]) -> Iterator[list[Passage]]:
        """The passages of M ascending rows, a shard at a time."""
        for first in range(0, len(rows), SHARD):
            yield self.take(rows[first : first + SHARD])

    def rows_with(self, column: str, values: Collection[str]) -> list[int]:
        """The rows that have one of these values in a column, ascending."""
        matches = pc.is_in(self.table[column], value_set=pa.array(sorted(values), pa.string()))
        # pyarrow 23 crashes on a column without rows.
        return pc.indices_nonzero(matches).to_pylist() if len(matches) else []

    def column(self, name: str, without: NDArray[np.int64] | None = None) -> pa.ChunkedArray:
        """The values of a column, some rows excluded."""
        if without is None or not len(without):
            return self.table[name]
        included = np.ones(len(self), dtype=bool)
        included[without] = False
        return self.table[name].filter(pa.array(included))

    def counts(self, column: str, without: NDArray[np.int64] | None = None) -> dict[str, int]:
        """The values of a column and how many rows have them, some rows excluded."""
        with self._decoding():
            values = pc.value_counts(self.column(column, without)).to_pylist()
        return {value["values"]: value["counts"] for value in values}

    def sources(self, without: NDArray[np.int64] | None = None) -> list[tuple[str, int, str]]:
        """Each source with its number of passages and the id of one of its documents, some rows excluded."""
        columns = {name: self.column(name, without) for name in ("source", "document_id")}
        groups = pa.table(columns).group_by("source", use_threads=False)
        found = groups.aggregate([("document_id", "count"), ("document_id", "first")])
        with self._decoding():
            parts = [found[name].to_pylist() for name in ("source", "document_id_count", "document_id_first")]
        return list(zip(*parts, strict=True))


def _check_bounds(batch: pa.RecordBatch) -> None:
    """Raise `ValueError` if a column would be read beyond its end: Arrow trusts mapped files."""
    batch.validate()
    for column in batch.columns:
        if pa.types.is_string(column.type) and len(column):
            _, starts, *texts = column.buffers()
            if column.null_count:
                raise ValueError("a text is missing")
            ends = np.frombuffer(starts, np.int32, len(column) + 1)
            if ends[0] < 0 or ends[-1] > (texts[0].size if texts[0] else 0) or (np.diff(ends) < 0).any():
                raise ValueError("a text ends before it starts, or beyond the file")


@contextmanager
def passage_writer(path: Path) -> Iterator[Callable[[Sequence[Passage]], None]]:
    """Write passages into a new file; yields a function that writes a shard as a record batch."""
    with durable(path) as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        yield lambda shard: writer.write_batch(passage_batch(shard))


def passage_batch(passages: Sequence[Passage]) -> pa.RecordBatch:
    """Passages as a record batch."""
    columns = [[getattr(passage, name) for passage in passages] for name in COLUMNS]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=_SCHEMA)


def write_passages(path: Path, shards: Iterable[Sequence[Passage]]) -> None:
    """Write passages into a new file, a record batch per shard."""
    with passage_writer(path) as write:
        for shard in shards:
            write(shard)


def write_vectors(
    path: Path, shards: Iterable[NDArray[np.float32]], count: int, dimension: int, *, begun: int = 0
) -> None:
    """Write vectors, (N, D), as one numpy array; each shard, (M, D), is synced to disk before the next is computed.

    If ``begun`` vectors are in the file already, the shards are those that follow.
    """
    if not begun:
        path.unlink(missing_ok=True)  # left by a run that was interrupted in its first shard
    with path.open("r+b" if begun else "xb") as file:
        if begun:
            file.truncate(_read_header(file)[0] + 4 * dimension * begun)
            file.seek(0, os.SEEK_END)
        else:
            _write_header(file, np.dtype("<f4"), (count, dimension))
        for shard in shards:
            file.write(np.ascontiguousarray(shard, dtype="<f4").data)
            _flush(file)
        _flush(file)


def vectors_written(path: Path) -> int:
    """How many vectors an interrupted `write_vectors` left in a file, in whole shards."""
    try:
        with path.open("rb") as file:
            start, dimension = _read_header(file)
            return (path.stat().st_size - start) // (4 * dimension) // SHARD * SHARD
    except (OSError, ValueError):
        return 0  # there is no file, or its header is incomplete


def _write_header(file: BinaryIO, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
    descr = np.lib.format.dtype_to_descr(kind)
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def _read_header(file: BinaryIO) -> tuple[int, int]:
    """Where the vectors of a file start, and D."""
    np.lib.format.read_magic(file)
    (_, dimension), _, _ = np.lib.format.read_array_header_1_0(file)
    return file.tell(), dimension


def write_array(path: Path, values: NDArray[Any]) -> None:
    """Write a numpy array."""
    with durable(path) as file:
        np.lib.format.write_array(file, values, version=(1, 0), allow_pickle=False)


@contextmanager
def array_writer(path: Path, kind: np.dtype[Any], count: int) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Write a numpy array of shape (count,) in parts; yields a function that writes the next part."""
    with durable(path) as file:
        _write_header(file, kind, (count,))

        def write(part: NDArray[Any]) -> None:
            file.write(np.ascontiguousarray(part, dtype=kind).data)

        yield write


def map_file(path: Path) -> pa.Buffer:
    """Map a file into memory and close it: the buffer needs no descriptor, and outlives the file's name."""
    try:
        with pa.memory_map(str(path)) as file:
            return file.read_buffer()
    except OSError as error:
        raise damaged(path, error) from error


def read_array(path: Path, kind: type[np.generic] | np.dtype[Any], ndim: int = 1) -> NDArray[Any]:
    """Map a numpy array into memory; raises `KnowledgeBaseError` if the file is missing or damaged."""
    content = map_file(path)
    try:
        with pa.BufferReader(content) as header:
            np.lib.format.read_magic(header)
            shape, _, dtype = np.lib.format.read_array_header_1_0(header)
            values = np.frombuffer(content, dtype, offset=header.tell()).reshape(shape)
    except Exception as error:  # numpy raises all kinds of errors for a damaged header
        raise damaged(path) from error
    if values.dtype != kind or values.ndim != ndim:
        raise damaged(path)
    return values


def write_text(path: Path, text: str) -> None:
    """Write a new text file."""
    with durable(path) as file:
        file.write(text.encode("utf-8"))


def replace_text(path: Path, text: str) -> None:
    """Replace a text file atomically: a reader sees the old one or the new one."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that takes the place of another one atomically, when it is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # left by a killed process with this id
    try:
        with durable(temporary) as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """Open a new file, and sync it to disk at the end."""
    with path.open("xb") as file:
        yield file
        _flush(file)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def names_in(folder: Path) -> list[str]:
    """The names in a folder, none if it does not exist; any other `OSError` is raised.

    From Python 3.13 on, glob finds nothing in a folder that cannot be read. Segments would then seem to be unused.
    """
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, so that they survive a power failure."""
    if os.name == "nt":  # pragma: no cover
        return  # Windows cannot open folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def damaged(path: Path, error: Exception | None = None) -> KnowledgeBaseError:
    """The error for a file that cannot be read, with the reason that the system gives."""
    if full := too_many_files(error):
        return full
    return KnowledgeBaseError(f"The file {path} is missing or damaged. {ADVICE}")
