"""What scripts read from a retriever's index: the data set, its FAISS index, and passages by row number."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tests.scripts import material
from tests.support import models, retrieval


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint", retrieval_batch_size=5)
    custom_index = material.rag_name(lib, "CustomHFIndex")
    config = lib.RagConfig.from_pretrained(checkpoint)
    tokenizers = (retrieval.question_tokenizer(), retrieval.generator_tokenizer())
    saved = material.save_passages(folder / "data")
    paths = (saved["passages_path"], saved["index_path"])
    retrievers = {
        "disk": lib.RagRetriever.from_pretrained(checkpoint, **saved),
        "memory": lib.RagRetriever.from_pretrained(checkpoint, indexed_dataset=material.passages()),
        "index": lib.RagRetriever(
            config, *tokenizers, index=custom_index(models.DIMENSION, material.passages())
        ),
        "loaded": lib.RagRetriever(
            config, *tokenizers, index=custom_index.load_from_disk(models.DIMENSION, *paths)
        ),
    }
    return {name: look(retriever) for name, retriever in retrievers.items()}


def look(retriever: Any) -> dict[str, Any]:
    questions = retrieval.questions(2)
    ids, vectors = retriever.index.get_top_docs(questions, n_docs=2)
    docs = retriever.index.get_doc_dicts(np.array([[4, 0]]))[0]
    dataset = retriever.index.dataset
    scores, rows = dataset.search("embeddings", questions[0], k=2)
    batch = dataset.search_batch("embeddings", questions, k=3)
    nearest = dataset.get_nearest_examples("embeddings", questions[1], k=1).examples
    return {
        "n_docs": retriever.n_docs,
        "batch_size": retriever.batch_size,
        "ids": ids,
        "vectors": vectors,
        "titles": docs["title"],
        "texts": docs["text"],
        "embeddings": np.asarray(docs["embeddings"]),
        "rows": len(dataset),
        "columns": sorted(dataset.column_names),
        "title of a row": dataset[2]["title"],
        "vector of a row": dataset[2]["embeddings"],
        "search": [np.asarray(scores), np.asarray(rows)],
        "batch": [np.asarray(part) for part in batch],
        "nearest": nearest["title"],
        "index": dataset.get_index("embeddings").faiss_index.ntotal,
        "indexes": dataset.list_indexes(),
        "one row of ids": retriever.index.get_doc_dicts(ids[0])[0]["title"],
        "initialized": retriever.index.is_initialized(),
    }
