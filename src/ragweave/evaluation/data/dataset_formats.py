"""Parquet files and data sets of the library ``datasets``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ragweave.errors import DataError
from ragweave.evaluation.data.records import Record

_BATCH_ROWS = 1000
_DEFAULT_SPLIT = "validation"
_SAVED = ("dataset_dict.json", "state.json")
"""The files in a folder that ``save_to_disk`` has written."""


def read_parquet(path: Path) -> Iterator[Record]:
    """Read a Parquet file in batches of rows.

    Raises:
        DataError: The file cannot be read.
    """
    number = 0
    try:
        with pq.ParquetFile(path, memory_map=True) as content:
            for batch in content.iter_batches(batch_size=_BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(f"row {number} of {path}", fields)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not a complete Parquet file ({error}): download it again.") from error


def read_dataset(name: str) -> Iterator[Record]:
    """Read a split of a data set, and replace class numbers by class names.

    Args:
        name: ``NAME[,CONFIGURATION][:SPLIT]``, where ``NAME`` is a folder written by ``save_to_disk``, a folder of
            data files, or a name on the hub. The default split is the only one that was saved, or ``validation``.

    Raises:
        DataError: The data set or the split does not exist.
    """
    try:
        rows = _load(name)
    # datasets raises OSError for unknown names, ValueError for unknown splits, RuntimeError for loading scripts.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"The data set '{name}' cannot be read ({reason}): write NAME,CONFIGURATION:SPLIT, or the folder of a "
            "saved data set."
        ) from error
    labels = {
        column: feature
        for column, feature in rows.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    for number, row in enumerate(rows, start=1):
        # -1 stands for an unknown class.
        names = {
            column: None if row[column] in (None, -1) else feature.int2str(row[column])
            for column, feature in labels.items()
        }
        yield Record(f"row {number} of {name}", {**row, **names})


def _load(name: str) -> Any:
    """The rows of a split, as plain Python values."""
    path, split = (name, "") if Path(name).is_dir() else _split_last(name, ":")
    if not any((Path(path) / file).is_file() for file in _SAVED):
        path, configuration = (path, "") if Path(path).is_dir() else _split_last(path, ",")
        return datasets.load_dataset(path, configuration or None, split=split or _DEFAULT_SPLIT)
    loaded = datasets.load_from_disk(path)
    if isinstance(loaded, datasets.DatasetDict):
        split = split or (next(iter(loaded)) if len(loaded) == 1 else _DEFAULT_SPLIT)
        if split not in loaded:
            raise ValueError(f"it has the splits {', '.join(loaded)}, not '{split}'")
        loaded = loaded[split]
    elif split:
        raise ValueError("it was saved without splits")
    return loaded.with_format(None)


def _split_last(name: str, separator: str) -> tuple[str, str]:
    """A name, and the text after its last separator."""
    head, match, tail = name.rpartition(separator)
    return (head, tail) if match else (name, "")
