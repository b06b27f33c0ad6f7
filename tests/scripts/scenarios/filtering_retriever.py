"""Retrievers that override ``retrieve``: one filters passages by title, the other reranks them by keywords."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tests.scripts import material

BANNED = ("Vienna", "Nile", "")


def filtering_class(lib: ModuleType) -> Any:
    class FilteringRetriever(lib.RagRetriever):
        def retrieve(self, question_hidden_states, n_docs):
            vectors, ids, docs = super().retrieve(question_hidden_states, n_docs + len(BANNED))
            allowed = [
                [k for k, title in enumerate(doc["title"]) if title.strip('"') not in BANNED][:n_docs]
                for doc in docs
            ]
            return pick(vectors, ids, docs, allowed)

    return FilteringRetriever


def reranking_class(lib: ModuleType) -> Any:
    class RerankingRetriever(lib.RagRetriever):
        keywords = frozenset({"river", "lies"})

        def retrieve(self, question_hidden_states: np.ndarray, n_docs: int) -> tuple[Any, Any, list[dict]]:
            ids, vectors = self._main_retrieve(question_hidden_states, n_docs + 2)
            docs = self.index.get_doc_dicts(ids)
            orders = []
            for doc in docs:
                shared = [len(self.keywords & set(text.split())) for text in doc["text"]]
                orders.append(sorted(range(len(shared)), key=lambda k, shared=shared: -shared[k])[:n_docs])
            return pick(vectors, ids, docs, orders)

    return RerankingRetriever


def pick(vectors: Any, ids: Any, docs: list[dict], orders: list[list[int]]) -> tuple[Any, Any, list[dict]]:
    """The passages of each question at the given positions, in this order."""
    rows = list(enumerate(orders))
    chosen = [
        {name: [docs[row][name][k] for k in order] for name in ("title", "text", "embeddings")}
        for row, order in rows
    ]
    return (
        np.stack([vectors[row][order] for row, order in rows]),
        np.stack([ids[row][order] for row, order in rows]),
        chosen,
    )


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
    input_ids = material.question_ids(tokenizer, 2)
    results: dict[str, Any] = {}
    for make in (filtering_class, reranking_class):
        retriever = make(lib).from_pretrained(checkpoint, indexed_dataset=material.passages(), n_docs=2)
        model = lib.RagTokenForGeneration.from_pretrained(checkpoint, retriever=retriever, n_docs=2)
        outputs = model(input_ids, labels=material.answer_ids(tokenizer, 2), output_retrieved=True)
        results[make.__name__] = {
            "doc_ids": outputs.retrieved_doc_ids,
            "doc_scores": outputs.doc_scores,
            "contexts": outputs.context_input_ids,
            "loss": outputs.loss,
            "answers": model.generate(input_ids, max_length=9),
        }
    return results
