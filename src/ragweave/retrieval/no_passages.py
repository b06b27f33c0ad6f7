"""No index at all: closed-book answers, from what the generator knows by itself.

Notation used for tensor shapes: B questions, D vector size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class NoPassages:
    """Finds one empty passage for every question, so that p(y|x) is the generator's own."""

    def __len__(self) -> int:
        return 1

    def init_index(self) -> None:
        """Do nothing."""

    def is_initialized(self) -> bool:
        """Whether it can be searched: always."""
        return True

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The empty passage, row 0, with a vector of zeros, and no others.

        Args:
            question_hidden_states: Question vectors, (B, D).
            n_docs: K.

        Returns:
            Rows, (B, K), and vectors, (B, K, D).
        """
        rows = np.full((len(question_hidden_states), n_docs), -1, dtype=np.int64)
        rows[:, :1] = 0
        return rows, np.zeros((*rows.shape, question_hidden_states.shape[1]), dtype=np.float32)

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Empty titles and texts."""
        return [{name: [""] * len(rows) for name in ("id", "title", "text", "source")} for rows in doc_ids]
