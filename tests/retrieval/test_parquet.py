"""ParquetRows: rows of several files by their number."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragweave.errors import IndexDataError
from ragweave.retrieval import passage_rows
from ragweave.retrieval.passage_rows import ParquetRows
from tests.support import indexes
from tests.support.indexes import D, N


def opened(folder: Path) -> ParquetRows:
    return ParquetRows(sorted(folder.glob("*.parquet")))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    indexes.write_shards(folder)
    return folder


@pytest.fixture(scope="module")
def rows(shards: Path) -> ParquetRows:
    return opened(shards)


@settings(max_examples=50, deadline=None)
@given(wanted=st.lists(st.integers(0, N - 1), min_size=1, max_size=40))
def test_any_rows_in_any_order(rows: ParquetRows, wanted: list[int]) -> None:
    assert len(rows) == N
    numbers = np.array(wanted)
    assert np.array_equal(rows.vectors(numbers), indexes.vectors()[numbers])
    expected = {
        "id": [str(row + 1) for row in wanted],
        "text": indexes.texts(wanted),
        "title": indexes.titles(wanted),
    }
    assert rows.texts(numbers) == expected


def test_no_rows(rows: ParquetRows) -> None:
    nothing = np.array([], dtype=np.int64)
    assert rows.texts(nothing) == {"id": [], "text": [], "title": []}
    assert len(rows.vectors(nothing)) == 0


def test_threads_may_share_it(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage_rows, "CACHED_BYTES", 50_000)  # so that they push each other's row groups out
    rows, source = opened(shards), np.random.default_rng(0)
    wanted = [source.integers(0, N, 20) for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for numbers, found in zip(wanted, pool.map(rows.vectors, wanted), strict=True):
            assert np.array_equal(found, indexes.vectors()[numbers])


@pytest.mark.parametrize("kept", [0, 20_000, 10**9])
def test_what_is_kept_is_bounded(shards: Path, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage_rows, "CACHED_BYTES", kept)
    rows = opened(shards)
    for start in range(0, N, 100):
        rows.texts(np.arange(start, start + 100))
        own = sum(values.nbytes for values in rows._cache.values())
        assert rows._cached_bytes == own <= kept
    assert np.array_equal(rows.vectors(np.arange(N)), indexes.vectors())


def write(folder: Path, column: pa.Array, **columns: pa.Array) -> ParquetRows:
    texts = ["x"] * len(column)
    table = pa.table({"title": texts, "text": texts, "embeddings": column, **columns})
    pq.write_table(table, folder / "a.parquet")
    return opened(folder)


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.list_(pa.float32(), D),
        pa.large_list(pa.float32()),
        pa.list_(pa.float64()),
        pa.list_(pa.float16()),
    ],
    ids=str,
)
def test_every_way_to_write_vectors(tmp_path: Path, kind: pa.DataType) -> None:
    own = np.round(indexes.vectors(10), 1)
    values = own.astype(np.float16) if kind.value_type == pa.float16() else own
    rows = write(tmp_path, pa.array(list(values), type=kind))
    found = rows.vectors(np.array([7, 2]))
    assert found.dtype == np.float32
    assert found == pytest.approx(own[[7, 2]], abs=2e-3)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[1.0, 2.0], [1.0]]), "several lengths"),
        (pa.array([[1.0, 2.0], None]), "missing"),
        (pa.array(["1.0", "2.0"]), "holds string instead of vectors"),
        (pa.array([["a"], ["b"]]), "instead of vectors"),
        (pa.array([1.0, 2.0]), "holds double instead of vectors"),
    ],
)
def test_what_are_no_vectors(tmp_path: Path, column: pa.Array, message: str) -> None:
    with pytest.raises(IndexDataError, match=message):
        write(tmp_path, column).vectors(np.array([0, 1]))


def test_vectors_of_two_dimensions(tmp_path: Path) -> None:
    for name, size in (("a", 2), ("b", 3)):
        table = pa.table({"title": ["x"], "text": ["x"], "embeddings": [[1.0] * size]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(IndexDataError, match="dimension 2, others of 3"):
        opened(tmp_path).vectors(np.array([0, 1]))


def test_null_texts_stay_null(tmp_path: Path) -> None:
    rows = write(tmp_path, pa.array([[1.0], [2.0]]), source=pa.array([None, "s"]))
    assert rows.texts(np.array([1, 0]))["source"] == ["s", None]


@pytest.mark.parametrize("column", ["title", "text", "embeddings"])
def test_missing_columns_are_named(tmp_path: Path, column: str) -> None:
    pq.write_table(indexes.table(range(3)).drop_columns(column), tmp_path / "a.parquet")
    with pytest.raises(IndexDataError, match=rf"a\.parquet lacks the column\(s\) {column}; it has id, "):
        opened(tmp_path)


def test_shards_of_other_columns_are_refused(tmp_path: Path) -> None:
    pq.write_table(indexes.table(range(3)), tmp_path / "a.parquet")
    pq.write_table(indexes.table(range(3), extra=["x"] * 3), tmp_path / "b.parquet")
    with pytest.raises(
        IndexDataError, match=r"b\.parquet has the columns .*extra; expected those of a\.parquet"
    ):
        opened(tmp_path)


def test_no_files() -> None:
    with pytest.raises(IndexDataError, match="no Parquet files"):
        ParquetRows([])


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file(tmp_path: Path, kept: float) -> None:
    indexes.write_shards(tmp_path, [300])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(IndexDataError, match="not a complete Parquet file"):
        opened(tmp_path)


def test_a_damaged_row_group(tmp_path: Path) -> None:
    indexes.write_shards(tmp_path, [300])
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(content)
    with pytest.raises(IndexDataError, match=r"is damaged: column .* of row group 0"):
        opened(tmp_path).texts(np.array([0]))
