"""Stand-ins of wiki_dpr and of the paper's own index: their file names, columns and kinds of index.

N passages, D vector size (`models.DIMENSION`).
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ragweave.retrieval.legacy import INDEX_FILE, META_FILE, PASSAGES_FILE
from tests.support import models, retrieval

D = models.DIMENSION
SHARDS = (1000, 900, 600)
N = sum(SHARDS)
N_DUMMY = 300
ROW_GROUP = 250
# The released files' kinds; of the second, fewer lists and smaller codes, for which there are vectors enough.
FACTORIES = {"HNSW128_SQ8-IP": "HNSW128,SQ8", "IVF4096_HNSW128_PQ128-IP": "IVF16_HNSW32,PQ8x4"}
FIRST_LEGACY_ID = 1000


@cache
def vectors(n_passages: int = N) -> NDArray:
    """The passages' vectors, (N, D): don't change them."""
    return retrieval.vectors(n_passages)


def titles(rows: Sequence[int]) -> list[str]:
    return [f"title {row}" for row in rows]


def texts(rows: Sequence[int]) -> list[str]:
    return [f"text {row}" for row in rows]


def table(rows: Sequence[int], **columns: Any) -> pa.Table:
    """Passages as wiki_dpr's Parquet files hold them."""
    own = pa.array(list(vectors(max(rows) + 1)[rows]), type=pa.list_(pa.float32()))
    plain = {"id": [str(row + 1) for row in rows], "text": texts(rows), "title": titles(rows)}
    return pa.table({**plain, "embeddings": own, **columns})


def write_shards(folder: Path, sizes: Sequence[int] = SHARDS, split: str = "train") -> None:
    """Parquet files of several row groups."""
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for number, size in enumerate(sizes):
        path = folder / f"{split}-{number:05}-of-{len(sizes):05}.parquet"
        pq.write_table(table(range(start, start + size)), path, row_group_size=ROW_GROUP)
        start += size


def write_faiss(path: Path, factory: str = "Flat", *, own: NDArray | None = None) -> Path:
    """A FAISS file."""
    own = vectors() if own is None else own
    index = faiss.index_factory(own.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(own)
    index.add(own)
    path.parent.mkdir(parents=True, exist_ok=True)
    faiss.write_index(index, str(path))
    return path


def write_wiki_dpr(folder: Path) -> Path:
    """A snapshot of facebook/wiki_dpr: passages, stand-in, passages without vectors, both FAISS files."""
    passages = folder / "data" / "psgs_w100"
    write_shards(passages / "nq")
    write_shards(passages / "dummy.nq", [N_DUMMY])
    (passages / "no_embeddings").mkdir()
    pq.write_table(
        table(range(10)).drop_columns("embeddings"),
        passages / "no_embeddings" / "train-00000-of-00001.parquet",
    )
    for name, factory in FACTORIES.items():
        write_faiss(folder / "index" / f"psgs_w100.nq.{name}-train.faiss", factory)
    return folder


def write_legacy(folder: Path, protocol: int = 4, *, n_passages: int = 400) -> Path:
    """The three files of the paper's index: the extra dimension makes all vectors equally long."""
    own = vectors(n_passages)
    squares = (own**2).sum(axis=1)
    extended = np.hstack([own, np.sqrt(squares.max() - squares)[:, None]])
    index = faiss.index_factory(D + 1, "HNSW32,SQ8", faiss.METRIC_L2)
    index.train(extended)
    index.add(extended)
    folder.mkdir(parents=True, exist_ok=True)
    faiss.write_index(index, str(folder / INDEX_FILE))
    ids = [str(FIRST_LEGACY_ID + row) for row in range(n_passages)]
    passages = {name: (f"text {name}", f"title {name}") for name in ids}
    (folder / META_FILE).write_bytes(pickle.dumps(ids, protocol))
    (folder / PASSAGES_FILE).write_bytes(pickle.dumps(passages, protocol))
    return folder
