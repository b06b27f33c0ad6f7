"""An index of passages in memory, searched exactly, without any file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import IndexDataError
from ragweave.retrieval.index_protocol import MISSING, ReadyIndex, check_queries, vectors_of_rows


class MemoryIndex(ReadyIndex):
    """Exact inner-product search over a matrix.

    Args:
        texts: Passage texts, N of them.
        embeddings: Passage vectors, (N, D).
        titles: Passage titles; empty by default.

    Raises:
        IndexDataError: The lengths differ, or there is no passage.

    Example:
        ```python
        index = MemoryIndex(texts, encoder.encode(texts))
        retriever = RagRetriever(config, question_tokenizer, generator_tokenizer, index=index)
        ```
    """

    def __init__(
        self, texts: Sequence[str], embeddings: NDArray[np.float32], titles: Sequence[str] | None = None
    ) -> None:
        self.embeddings = np.ascontiguousarray(embeddings, dtype=np.float32)
        self.texts = list(texts)
        self.titles = [""] * len(self.texts) if titles is None else list(titles)
        if not self.texts:
            raise IndexDataError("There are no passages to search; give at least one.")
        if self.embeddings.ndim != 2 or not len(self.texts) == len(self.titles) == len(self.embeddings):
            raise IndexDataError(
                f"embeddings has shape {self.embeddings.shape}, texts {len(self.texts)} and titles "
                f"{len(self.titles)} entries; expected (N, D), N and N."
            )

    def __len__(self) -> int:
        return len(self.texts)

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 5
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Search for the K best rows and their vectors; see `Index.get_top_docs`."""
        check_queries(question_hidden_states, self.embeddings.shape[1])
        scores = question_hidden_states @ self.embeddings.T  # (B, N)
        hits = min(n_docs, len(self.texts))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :hits]
        rows = np.full((len(scores), n_docs), MISSING, dtype=np.int64)
        rows[:, :hits] = best
        return rows, vectors_of_rows(
            rows, lambda distinct: self.embeddings[distinct], self.embeddings.shape[1]
        )

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Look up passages; see `Index.get_doc_dicts`."""
        return [
            {
                "title": [self.titles[row] if row >= 0 else "" for row in rows],
                "text": [self.texts[row] if row >= 0 else "" for row in rows],
            }
            for rows in doc_ids
        ]
