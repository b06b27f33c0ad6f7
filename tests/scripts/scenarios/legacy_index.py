"""The index of the original code, ``index_name="legacy"``: FAISS with an extra dimension, and pickled passages."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import faiss
import numpy as np

from tests.scripts import material
from tests.support import models, retrieval

INDEX, PASSAGES = "hf_bert_base.hnswSQ8_correct_phi_128.c_index", "psgs_w100.tsv.pkl"


def write_index(folder: Path) -> str:
    """Three files as the original code writes them; passages are numbered from 100 on."""
    folder.mkdir()
    vectors = retrieval.vectors()
    norms = (vectors**2).sum(1)
    extra = np.sqrt(norms.max() - norms)[:, None]  # makes Euclidean distance an inner product
    index = faiss.IndexHNSWFlat(models.DIMENSION + 1, 16)
    index.add(np.hstack([vectors, extra]).astype(np.float32))
    faiss.write_index(index, str(folder / f"{INDEX}.index.dpr"))
    numbers = [str(100 + row) for row in range(len(vectors))]
    (folder / f"{INDEX}.index_meta.dpr").write_bytes(pickle.dumps(numbers))
    texts = {number: (text, title) for number, (title, text) in zip(numbers, retrieval.PASSAGES, strict=True)}
    (folder / PASSAGES).write_bytes(pickle.dumps(texts))
    return str(folder)


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    os.environ["TRUST_REMOTE_CODE"] = "True"  # transformers requires it, since it unpickles
    try:
        retriever = lib.RagRetriever.from_pretrained(
            checkpoint, index_name="legacy", index_path=write_index(folder / "legacy")
        )
    finally:
        del os.environ["TRUST_REMOTE_CODE"]
    model = lib.RagTokenForGeneration.from_pretrained(checkpoint, retriever=retriever)
    tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
    input_ids = material.question_ids(tokenizer, 2)
    outputs = model(input_ids, labels=material.answer_ids(tokenizer, 2), output_retrieved=True)
    return {
        "doc_ids": outputs.retrieved_doc_ids,
        "doc_scores": outputs.doc_scores,
        "loss": outputs.loss,
        "titles": [doc["title"] for doc in retriever.index.get_doc_dicts(outputs.retrieved_doc_ids.numpy())],
        "kind": isinstance(retriever.index, material.rag_name(lib, "LegacyIndex")),
    }
