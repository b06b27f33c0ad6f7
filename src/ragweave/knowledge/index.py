"""A knowledge base as an index of the retriever.

Notation used for tensor shapes: B questions, K passages per question, N passages, D vector size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ragweave.knowledge.passages import Passage
from ragweave.knowledge.store import COLUMNS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ragweave.knowledge.base import KnowledgeBase

_NOTHING = Passage(id="", document_id="", title="", text="", source="")


class KnowledgeBaseIndex:
    """Satisfies the `Index` protocol of ``ragweave.retrieval`` with a knowledge base.

    Args:
        base: The knowledge base, open.
    """

    def __init__(self, base: KnowledgeBase) -> None:
        self.base = base

    def __len__(self) -> int:
        return len(self.base)

    def init_index(self) -> None:
        """Do nothing: a knowledge base is ready once it is open."""

    def is_initialized(self) -> bool:
        """Whether the index can be searched: always."""
        return True

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 5
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the passages with the largest inner products.

        Args:
            question_hidden_states: Question vectors, shape (B, D).
            n_docs: K.

        Returns:
            Rows, shape (B, K), best first and -1 where there are fewer passages, and the passages' vectors,
            shape (B, K, D), zero for those.
        """
        import numpy as np

        _, rows = self.base.search(question_hidden_states, n_docs)
        vectors = np.zeros((*rows.shape, self.base.manifest.dimension), dtype=np.float32)  # (B, K, D)
        vectors[rows >= 0] = self.base.vectors_of(rows[rows >= 0])
        return rows, vectors

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look passages up.

        Args:
            doc_ids: Rows, shape (B, K).

        Returns:
            B dictionaries of lists of length K: ``id``, ``document_id``, ``title``, ``text``, ``source``, all
            empty for row -1.
        """
        return [self._columns(rows) for rows in doc_ids]

    def _columns(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        passages = [self.base.passage(row) if row >= 0 else _NOTHING for row in rows]
        return {name: [getattr(passage, name) for passage in passages] for name in COLUMNS}
