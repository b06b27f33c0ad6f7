"""A retriever on Ray: a pool of actors searches, and every actor holds a retriever.

Scripts of this kind override ``from_pretrained`` and call ``_build_index``. The actors are plain objects here.
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.scripts import material


def worker_class(lib: ModuleType) -> Any:
    class Worker:
        def create(self, config, question_encoder_tokenizer, generator_tokenizer, index):
            self.retriever = lib.RagRetriever(
                config,
                question_encoder_tokenizer=question_encoder_tokenizer,
                generator_tokenizer=generator_tokenizer,
                index=index,
                init_retrieval=False,
            )

        def init_retrieval(self):
            self.retriever.index.init_index()

        def retrieve(self, question_hidden_states, n_docs):
            ids, vectors = self.retriever._main_retrieve(question_hidden_states, n_docs)
            return ids, vectors, self.retriever.index.get_doc_dicts(ids)

    return Worker


def retriever_class(lib: ModuleType) -> Any:
    class PooledRetriever(lib.RagRetriever):
        def __init__(self, config, question_encoder_tokenizer, generator_tokenizer, workers, index=None):
            parts = (config, question_encoder_tokenizer, generator_tokenizer)
            super().__init__(*parts, index=index, init_retrieval=False)
            for worker in workers:
                worker.create(*parts, index)
            self.workers = workers
            self.turn = cycle(workers)

        def init_retrieval(self):
            for worker in self.workers:
                worker.init_retrieval()

        def retrieve(self, question_hidden_states, n_docs):
            ids, vectors, docs = next(self.turn).retrieve(question_hidden_states, n_docs)
            return vectors, ids, docs

        @classmethod
        def from_pretrained(cls, path, workers, indexed_dataset=None, **kwargs):
            config = kwargs.pop("config", None) or lib.RagConfig.from_pretrained(path, **kwargs)
            tokenizer = lib.RagTokenizer.from_pretrained(path, config=config)
            if indexed_dataset is None:
                index = cls._build_index(config)
            else:
                config.index_name = "custom"
                custom_index = material.rag_name(lib, "CustomHFIndex")
                index = custom_index(config.retrieval_vector_size, indexed_dataset)
            return cls(config, tokenizer.question_encoder, tokenizer.generator, workers=workers, index=index)

    return PooledRetriever


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint", "sequence")
    tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
    input_ids = material.question_ids(tokenizer, 2)
    results: dict[str, Any] = {}
    for source, arguments in {
        "disk": material.save_passages(folder / "data"),
        "memory": {"indexed_dataset": material.passages()},
    }.items():
        workers = [worker_class(lib)() for _ in range(2)]
        retriever = retriever_class(lib).from_pretrained(checkpoint, workers, **arguments)
        retriever.init_retrieval()
        model = lib.RagSequenceForGeneration.from_pretrained(checkpoint, retriever=retriever)
        results[source] = {
            "loss": model(input_ids, labels=material.answer_ids(tokenizer, 2)).loss,
            "answers": material.without_padding(
                model.generate(input_ids, num_beams=2, min_length=5, max_length=9)
            ),
            "loaded": [worker.retriever.index.is_initialized() for worker in workers],
        }
    return results
