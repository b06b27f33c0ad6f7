"""A subclass of ``Index`` that searches by matrix products, passed to a retriever."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tests.scripts import material
from tests.support import retrieval


def index_class(lib: ModuleType) -> Any:
    class MatrixIndex(material.rag_name(lib, "Index")):
        def __init__(self, passages, vectors):
            self.passages = passages
            self.all_vectors = vectors
            self.vectors = None

        def is_initialized(self):
            return self.vectors is not None

        def init_index(self):
            self.vectors = self.all_vectors

        def get_top_docs(self, question_hidden_states, n_docs=5):
            ids = np.argsort(-(question_hidden_states @ self.vectors.T), axis=1, kind="stable")[:, :n_docs]
            return ids, self.vectors[ids]

        def get_doc_dicts(self, doc_ids):
            return [
                {
                    "title": [self.passages[row][0] for row in rows],
                    "text": [self.passages[row][1] for row in rows],
                }
                for rows in doc_ids
            ]

    return MatrixIndex


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint", retrieval_batch_size=1)
    tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
    index = index_class(lib)(retrieval.PASSAGES, retrieval.vectors())
    retriever = lib.RagRetriever(
        lib.RagConfig.from_pretrained(checkpoint),
        question_encoder_tokenizer=tokenizer.question_encoder,
        generator_tokenizer=tokenizer.generator,
        index=index,
    )
    initialized = index.is_initialized()
    input_ids = material.question_ids(tokenizer, 2)
    results: dict[str, Any] = {"initialized": initialized}
    for formulation, name in material.CLASSES.items():
        model = getattr(lib, name).from_pretrained(checkpoint, retriever=retriever)
        outputs = model(input_ids, labels=material.answer_ids(tokenizer, 2), output_retrieved=True)
        results[formulation] = {
            "doc_ids": outputs.retrieved_doc_ids,
            "loss": outputs.loss,
            "answers": material.without_padding(
                model.generate(input_ids, num_beams=2, min_length=5, max_length=9)
            ),
        }
    return results
