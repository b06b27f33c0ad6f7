"""A retriever on torch.distributed: one process searches for the questions of all processes.

Scripts of this kind build the index at once, load it in ``init_retrieval(port)`` and gather the questions in
``retrieve``. One process stands in for the group here.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tests.scripts import material

N_PROCESSES = 3


class Group:
    """Stands for a group of processes that all ask the same questions; this is process 1."""

    def __init__(self, port: int) -> None:
        self.port = port

    def gather(self, vectors: np.ndarray) -> list[np.ndarray]:
        return [vectors] * N_PROCESSES

    def scatter(self, parts: list[np.ndarray]) -> np.ndarray:
        assert len(parts) == N_PROCESSES
        return parts[1]


def retriever_class(lib: ModuleType) -> Any:
    class DistributedRetriever(lib.RagRetriever):
        def __init__(self, config, question_encoder_tokenizer, generator_tokenizer, index=None):
            super().__init__(
                config,
                question_encoder_tokenizer=question_encoder_tokenizer,
                generator_tokenizer=generator_tokenizer,
                index=index,
                init_retrieval=False,
            )
            self.group = None

        def init_retrieval(self, distributed_port):
            self.group = Group(distributed_port)
            self.index.init_index()

        def retrieve(self, question_hidden_states, n_docs):
            n_questions = len(question_hidden_states)
            everyones = np.concatenate(self.group.gather(question_hidden_states))
            ids, vectors = self._main_retrieve(everyones, n_docs)
            ids = self.group.scatter(self._chunk_tensor(ids, n_questions))
            vectors = self.group.scatter(self._chunk_tensor(vectors, n_questions))
            return vectors, ids, self.index.get_doc_dicts(ids)

    return DistributedRetriever


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint", retrieval_batch_size=2)
    retriever = retriever_class(lib).from_pretrained(checkpoint, **material.save_passages(folder / "data"))
    loaded = [retriever.index.is_initialized()]
    model = lib.RagTokenForGeneration.from_pretrained(checkpoint, retriever=retriever)
    tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
    model.rag.retriever.init_retrieval(29500)
    loaded.append(retriever.index.is_initialized())

    input_ids = material.question_ids(tokenizer, 2)
    outputs = model(input_ids, labels=material.answer_ids(tokenizer, 2), output_retrieved=True)
    return {
        "loaded": loaded,
        "port": retriever.group.port,
        "loss": outputs.loss,
        "doc_ids": outputs.retrieved_doc_ids,
        "answers": model.generate(input_ids, num_beams=2, max_length=9),
    }
