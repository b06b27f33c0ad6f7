"""Passages of a `datasets.Dataset` by row number, read where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import IndexDataError
from ragweave.retrieval.index_protocol import INDEX_COLUMN

if TYPE_CHECKING:
    from datasets import Dataset


class DatasetRows:
    """Texts and vectors of a data set's rows.

    The data set's own look-up gathers the rows into a new table and decodes that, which takes a good part of what
    searching takes. Columns of plain values are read from its Arrow table instead, a row at a time; for columns with
    a decoding of their own (images, say) the data set is asked.

    Args:
        dataset: The passages; a selection or a shuffled view of some too.
    """

    def __init__(self, dataset: Dataset) -> None:
        from datasets import Value

        self._columns = [name for name in dataset.column_names if name != INDEX_COLUMN]
        plain = [name for name in self._columns if isinstance(dataset.features[name], Value)]
        decoded = [name for name in self._columns if name not in plain]
        self._decoded = dataset.with_format(None).select_columns(decoded) if decoded else None
        table = dataset.data.table
        self._numbers = {name: table.schema.get_field_index(name) for name in (*plain, INDEX_COLUMN)}
        self._batches = table.to_batches()  # slices of the table: no copy
        self._starts: NDArray[np.int64] = np.cumsum([0, *(len(batch) for batch in self._batches)])
        # Of a selection or a shuffling, the numbers of its rows in the table.
        self._places = None if dataset._indices is None else dataset._indices.table[0]
        self._length = len(dataset)

    def __len__(self) -> int:
        return self._length

    def texts(self, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
        """For each column but the vectors', its values in M rows (0 to N-1)."""
        placed = self._placed(rows)
        found = {
            name: [batch.column(number)[row].as_py() for batch, row in placed]
            for name, number in self._numbers.items()
            if name != INDEX_COLUMN
        }
        if self._decoded is not None:
            found |= self._decoded[rows.tolist()]
        return {name: found[name] for name in self._columns}

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of M rows (0 to N-1, at least one), (M, D).

        Raises:
            IndexDataError: They are no vectors, or not of one length.
        """
        number = self._numbers[INDEX_COLUMN]
        parts = [batch.column(number)[row].values for batch, row in self._placed(rows)]
        try:
            found = [np.asarray(part.to_numpy(zero_copy_only=False), dtype=np.float32) for part in parts]
            return np.stack(found)
        except (AttributeError, TypeError, ValueError) as error:
            raise IndexDataError(
                f"The column '{INDEX_COLUMN}' holds something else than vectors of one length; its type is "
                f"{self._batches[0].schema.field(number).type}."
            ) from error

    def _placed(self, rows: NDArray[np.int64]) -> list[tuple[Any, int]]:
        """For each of M rows, the part of the table that holds it and where in it."""
        if self._places is not None:
            rows = self._places.take(rows).to_numpy().astype(np.int64)
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        within = rows - self._starts[parts]
        return [(self._batches[part], row) for part, row in zip(parts.tolist(), within.tolist(), strict=True)]
