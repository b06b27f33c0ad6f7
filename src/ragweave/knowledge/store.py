"""The files of one version: passages as Arrow, vectors as numpy, an index as FAISS.

Everything is written through ordinary file objects, never through a memory map: a disk that fills is then an
exception here, not a signal that ends the process.

Notation used for tensor shapes: N passages, D vector size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge.passages import Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS = tuple(field.name for field in fields(Passage))
"""The columns of the passages' table, which are the attributes of a passage."""

SHARD = 10_000
"""How many passages are in memory at a time while a knowledge base is built."""


class PassageTable:
    """The passages of a version, memory-mapped: only what is looked at is read.

    Args:
        path: The Arrow IPC file.
    """

    def __init__(self, path: Path) -> None:
        import numpy as np
        import pyarrow as pa

        try:
            self._source = pa.memory_map(str(path))
            reader = pa.ipc.open_file(self._source)
            self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except (OSError, pa.ArrowException) as error:
            raise KnowledgeBaseError(_damaged(path)) from error
        if tuple(reader.schema.names) != COLUMNS:
            raise KnowledgeBaseError(_damaged(path))
        # Where each batch begins, and after the last one where the table ends.
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> Passage:
        import numpy as np

        if not 0 <= row < len(self):
            raise IndexError(f"There is no passage {row}: rows run from 0 to {len(self) - 1}.")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        batch, position = self._batches[number], row - int(self._starts[number])
        return Passage(*(column[position].as_py() for column in batch.columns))

    def shards(self) -> Iterator[list[Passage]]:
        """Yield all passages in order, as many at a time as were written together."""
        for batch in self._batches:
            columns = (column.to_pylist() for column in batch.columns)
            yield [Passage(*values) for values in zip(*columns, strict=True)]

    def rows_of(self, name: str) -> list[int]:
        """Find the passage with this id, or all passages of the document with this id."""
        import pyarrow.compute as pc

        rows: list[int] = []
        for start, batch in zip(self._starts, self._batches, strict=False):
            found = pc.or_(pc.equal(batch["id"], name), pc.equal(batch["document_id"], name))
            rows.extend(int(start) + position for position in pc.indices_nonzero(found).to_pylist())
        return rows


def write_passages(path: Path, shards: Iterable[Sequence[Passage]]) -> None:
    """Write passages, a batch of the file for every shard.

    Args:
        path: The file to make.
        shards: The passages.
    """
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    with _durable(path) as file, pa.ipc.new_file(file, schema) as writer:
        for shard in shards:
            columns = [[getattr(passage, name) for passage in shard] for name in COLUMNS]
            arrays = [pa.array(column, pa.string()) for column in columns]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def write_vectors(path: Path, shards: Iterable[NDArray[np.float32]], count: int, dimension: int) -> None:
    """Write vectors as one numpy array.

    Args:
        path: The file to make.
        shards: The vectors, each shard of shape (any, D).
        count: How many there are altogether, N.
        dimension: D.
    """
    import numpy as np

    header = {"descr": np.lib.format.dtype_to_descr(np.dtype("<f4")), "fortran_order": False}
    with _durable(path) as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (count, dimension)})
        for shard in shards:
            file.write(np.ascontiguousarray(shard, dtype="<f4").data)


def read_vectors(path: Path) -> NDArray[np.float32]:
    """Map the vectors of a version into memory, shape (N, D).

    Raises:
        KnowledgeBaseError: The file is damaged.
    """
    import numpy as np

    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise KnowledgeBaseError(_damaged(path)) from error
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32 or vectors.ndim != 2:
        raise KnowledgeBaseError(_damaged(path))
    return vectors


def write_index(path: Path, vectors: NDArray[np.float32]) -> None:
    """Write a FAISS index that compares a question with every vector, by inner product.

    Args:
        path: The file to make.
        vectors: All vectors, shape (N, D), mapped or in memory.
    """
    import faiss
    import numpy as np

    index = faiss.IndexFlatIP(vectors.shape[1])
    for start in range(0, len(vectors), SHARD):
        index.add(np.ascontiguousarray(vectors[start : start + SHARD]))
    with _durable(path) as file:
        # FAISS' own file writer says nothing when the last bytes do not fit on the disk.
        writer = faiss.PyCallbackIOWriter(file.write, 1 << 20)  # type: ignore[attr-defined]
        faiss.write_index(index, writer)


def read_index(path: Path) -> Any:
    """Read a FAISS index, mapped into memory where this FAISS can.

    Raises:
        KnowledgeBaseError: The file is damaged.
    """
    import faiss

    # From FAISS 1.11 on; the older flag maps inverted lists only, and a flat index is read whole.
    flag = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP)
    try:
        return faiss.read_index(str(path), flag)
    except RuntimeError as error:
        raise KnowledgeBaseError(_damaged(path)) from error


def write_text(path: Path, text: str) -> None:
    """Write a small file of UTF-8."""
    with _durable(path) as file:
        file.write(text.encode("utf-8"))


@contextmanager
def _durable(path: Path) -> Iterator[BinaryIO]:
    """Open a new file whose bytes are on the disk when it is left."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _damaged(path: Path) -> str:
    return f"The file {path} is missing or damaged: build the knowledge base again with --overwrite."
