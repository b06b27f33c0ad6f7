"""What every index can do, whatever holds its vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INDEX_COLUMN = "embeddings"
REQUIRED_COLUMNS = ("title", "text", INDEX_COLUMN)
MISSING = -1
"""The row number that stands for "no passage" where an index has fewer hits than were asked for."""


@runtime_checkable
class Index(Protocol):
    """Passages and their vectors, searchable by inner product.

    The method names are those of transformers' RAG, so an index written for it works here.
    """

    def init_index(self) -> None:
        """Load what searching needs; called once, before the first search."""
        ...

    def is_initialized(self) -> bool:
        """Whether `init_index` has been called."""
        ...

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 5
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the passages with the largest inner products.

        Args:
            question_hidden_states: Question vectors, (B, D).
            n_docs: K.

        Returns:
            Row numbers, (B, K), best first and -1 where there are fewer hits, and the passages' vectors,
            (B, K, D), zero for those.
        """
        ...

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look passages up.

        Args:
            doc_ids: Row numbers, (B, K).

        Returns:
            B dictionaries of lists of length K: "title" and "text" at least, empty for row -1.
        """
        ...
