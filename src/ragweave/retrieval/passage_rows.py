"""Passages in files, by their row number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import IndexDataError
from ragweave.retrieval.arrow import DatasetRows
from ragweave.retrieval.index_protocol import MISSING, REQUIRED_COLUMNS


class PassageRows(Protocol):
    """What `CanonicalIndex` needs of its passages, wherever they are."""

    def __len__(self) -> int: ...

    def texts(self, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
        """For each column but the vectors', its values in M rows (0 to N-1)."""
        ...

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of M rows (0 to N-1, at least one), (M, D)."""
        ...


class SavedRows(DatasetRows):
    """A folder that ``save_to_disk`` of the datasets library wrote, memory-mapped.

    Args:
        folder: The folder, of a data set or of a dictionary of splits.
        split: Which split.

    Raises:
        IndexDataError: The split is not there, or the folder is damaged or lacks columns.
    """

    def __init__(self, folder: Path, split: str) -> None:
        from datasets import load_from_disk

        of_split = folder / split if (folder / "dataset_dict.json").is_file() else folder
        if not of_split.is_dir():
            others = sorted(path.name for path in folder.iterdir() if path.is_dir())
            raise IndexDataError(f"There is no split {split!r} in {folder}; it has {', '.join(others)}.")
        try:
            dataset = load_from_disk(str(of_split))
        except (OSError, ValueError) as error:
            raise IndexDataError(f"{of_split} is no whole data set of save_to_disk: {error}") from error
        if dataset.split is not None and str(dataset.split) != split:
            raise IndexDataError(
                f"{folder} holds the split '{dataset.split}', and dataset_split is {split!r}."
            )
        check_columns(dataset.column_names, of_split)
        super().__init__(dataset.with_format(None))

    @staticmethod
    def is_folder_of(folder: Path) -> bool:
        """Whether ``save_to_disk`` wrote a folder."""
        return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def texts_of_rows(
    rows: NDArray[np.int64], look_up: Callable[[NDArray[np.int64]], dict[str, list[Any]]]
) -> list[dict[str, list[Any]]]:
    """Gather passages, each row once, empty strings for missing ones.

    Args:
        rows: Row numbers, (B, K), -1 for none.
        look_up: Gives, for each column, its values in distinct row numbers in rising order.

    Returns:
        One dictionary per question: for each column, K values.
    """
    distinct, places = np.unique(rows, return_inverse=True)  # a missing one comes first
    missing = len(distinct) > 0 and distinct[0] == MISSING
    found = look_up(distinct[1:] if missing else distinct)
    values = {name: ["", *own] if missing else own for name, own in found.items()}
    return [
        {name: [own[place] for place in of_question] for name, own in values.items()}
        for of_question in places.reshape(rows.shape)
    ]


def check_columns(names: Sequence[str], where: Path) -> None:
    """Check that passages have the columns that they need.

    Raises:
        IndexDataError: Some are not there.
    """
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    if missing:
        raise IndexDataError(
            f"The passages in {where} lack the column(s) {', '.join(missing)}; they have {', '.join(names)}."
        )
