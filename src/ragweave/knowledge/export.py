"""Writes the passages of a knowledge base with their vectors to a Parquet or JSON lines file, a shard at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ragweave.errors import ConfigurationError
from ragweave.knowledge.storage import Storage
from ragweave.knowledge.store import passage_batch, replacing
from ragweave.retrieval.index_protocol import INDEX_COLUMN
from ragweave.types import Progress

_ROW_GROUP = 1000  # as in wiki_dpr: a search in such files reads whole groups


def export_passages(storage: Storage, path: Path, *, overwrite: bool, progress: Progress) -> None:
    """Write all passages; see `KnowledgeBase.export`."""
    if path.suffix not in (".parquet", ".jsonl"):
        raise ConfigurationError(f"{path} ends in neither .parquet nor .jsonl: choose one of them.")
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigurationError(
            f"{path} is a folder, or there is no folder for it: name a file in a folder."
        )
    if path.exists() and not overwrite:
        raise ConfigurationError(f"{path} exists: add --overwrite (overwrite=True), or choose another file.")
    progress.start("Exporting", storage.manifest.passages)
    with replacing(path) as file, _writer(file, path.suffix, storage.manifest.dimension) as write:
        for passages, vectors in storage.shards():
            lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
            write(passage_batch(passages).append_column(INDEX_COLUMN, lists))
            progress.advance(len(passages))


@contextmanager
def _writer(file: BinaryIO, kind: str, dimension: int) -> Iterator[Any]:
    if kind == ".parquet":
        schema = passage_batch([]).schema.append(pa.field(INDEX_COLUMN, pa.list_(pa.float32(), dimension)))
        with pq.ParquetWriter(file, schema) as parquet:
            yield lambda batch: parquet.write_batch(batch, row_group_size=_ROW_GROUP)
    else:

        def write(batch: pa.RecordBatch) -> None:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())
            file.writelines(line.encode() for line in lines)

        yield write
