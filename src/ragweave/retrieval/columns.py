"""The columns that passages have in files, and a data set of the datasets library as their source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ragweave.errors import IndexDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

VECTOR_COLUMN = "embeddings"
REQUIRED_COLUMNS = ("title", "text", VECTOR_COLUMN)


class PassageRows(Protocol):
    """Passages by their row number."""

    @property
    def column_names(self) -> list[str]:
        """All columns, the vectors' among them."""
        ...

    def __len__(self) -> int: ...

    def texts(self, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
        """Values of all columns but the vectors, of M rows."""
        ...

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of M rows, (M, D)."""
        ...
