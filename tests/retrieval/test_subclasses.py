"""Retrievers written for transformers: what a subclass overrides is what the retriever uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ragweave import MemoryIndex, RagRetriever
from tests.support import models, retrieval

D = models.DIMENSION


def build(cls: type[RagRetriever], **fields: Any) -> RagRetriever:
    titles, texts = zip(*retrieval.PASSAGES, strict=True)
    index = MemoryIndex(texts, retrieval.vectors(), titles=titles)
    config = retrieval.config(**fields)
    return cls(config, retrieval.question_tokenizer(), retrieval.generator_tokenizer(), index=index)


def call(retriever: RagRetriever, **options: Any) -> Any:
    return retriever(
        None,
        retrieval.questions(2),
        n_docs=2,
        return_tensors="np",
        question_strings=list(retrieval.QUESTIONS[:2]),
        **options,
    )


class Reversed(RagRetriever):
    """Reranks: the last of the candidates come first."""

    def retrieve(self, question_hidden_states: NDArray, n_docs: int) -> tuple[NDArray, NDArray, list[dict]]:
        vectors, rows, _ = super().retrieve(question_hidden_states, 2 * n_docs)
        rows = rows[:, ::-1][:, :n_docs]
        return vectors[:, ::-1][:, :n_docs], rows, self.index.get_doc_dicts(rows)


def test_calling_uses_an_overridden_retrieve() -> None:
    plain, reranked = call(build(RagRetriever)), call(build(Reversed))
    expected = retrieval.best_rows(retrieval.questions(2), retrieval.vectors(), 4)
    assert np.array_equal(plain["doc_ids"], expected[:, :2])
    assert np.array_equal(reranked["doc_ids"], expected[:, ::-1][:, :2])
    assert np.array_equal(reranked["retrieved_doc_embeds"], retrieval.vectors()[reranked["doc_ids"]])
    assert not np.array_equal(plain["context_input_ids"], reranked["context_input_ids"])


def test_calling_uses_a_retrieve_that_was_put_on_the_instance() -> None:
    retriever = build(RagRetriever)
    fixed = np.array([[3, 1], [0, 2]])
    retriever.retrieve = lambda vectors, n_docs: (  # type: ignore[method-assign]
        retrieval.vectors()[fixed],
        fixed,
        retriever.index.get_doc_dicts(fixed),
    )
    assert np.array_equal(call(retriever)["doc_ids"], fixed)


class Distributed(RagRetriever):
    """One process searches for all: the shape of transformers' distributed retrievers, without the processes."""

    def __init__(self, config: Any, *tokenizers: Any, index: Any = None) -> None:
        super().__init__(config, *tokenizers, index=index, init_retrieval=False)
        self.port: int | None = None
        self.chunks: list[int] = []

    def init_retrieval(self, distributed_port: int) -> None:
        self.port = distributed_port
        self.index.init_index()

    def retrieve(self, question_hidden_states: NDArray, n_docs: int) -> tuple[NDArray, NDArray, list[dict]]:
        rows, vectors = self._main_retrieve(question_hidden_states, n_docs)
        gathered = np.concatenate(self._chunk_tensor(rows, n_docs))
        return vectors, gathered, self.index.get_doc_dicts(gathered)

    def _chunk_tensor(self, t: Any, chunk_size: int) -> list[Any]:
        chunks = super()._chunk_tensor(t, chunk_size)
        self.chunks += map(len, chunks)
        return chunks


def test_a_distributed_retriever_searches_through_the_parts_it_overrides() -> None:
    retriever = build(Distributed, retrieval_batch_size=1)
    assert isinstance(retriever, Distributed)
    retriever.init_retrieval(29500)
    output = call(retriever)
    assert retriever.port == 29500
    assert retriever.chunks == [1, 1, 2]
    assert np.array_equal(output["doc_ids"], call(build(RagRetriever))["doc_ids"])


class QuestionFirst(RagRetriever):
    """Contexts in another order, with transformers' signature."""

    def postprocess_docs(self, docs, input_strings, prefix, n_docs, return_tensors=None):
        texts = [f"{q} {t}" for doc, q in zip(docs, input_strings, strict=True) for t in doc["text"]]
        encoded = self.generator_tokenizer(texts, padding=True, return_tensors=return_tensors)
        return encoded["input_ids"], encoded["attention_mask"]


def test_an_overridden_postprocess_docs_needs_no_further_arguments() -> None:
    retriever = build(QuestionFirst)
    output = call(retriever)
    first = retriever.generator_tokenizer.decode(output["context_input_ids"][0], skip_special_tokens=True)
    assert first.startswith(retrieval.QUESTIONS[0])
    with pytest.raises(TypeError, match="padding"):
        call(retriever, padding="longest")


def test_a_subclass_builds_its_own_index() -> None:
    class Fixed(RagRetriever):
        @staticmethod
        def _build_index(config: Any) -> MemoryIndex:
            return MemoryIndex(["only"], np.ones((1, config.retrieval_vector_size), np.float32))

    tokenizers = retrieval.question_tokenizer(), retrieval.generator_tokenizer()
    retriever = Fixed(retrieval.config(), *tokenizers)
    _, rows, docs = retriever.retrieve(np.ones((1, D), np.float32), 1)
    assert rows.tolist() == [[0]]
    assert docs[0]["text"] == ["only"]
    assert docs[0]["embeddings"].shape == (1, D)


def test_attributes_that_scripts_set() -> None:
    retriever = build(RagRetriever, n_docs=3, retrieval_batch_size=5)
    assert (retriever.n_docs, retriever.batch_size) == (3, 5)
    retriever.n_docs = 1
    output = retriever(None, retrieval.questions(2), question_strings=list(retrieval.QUESTIONS[:2]))
    assert np.shape(output["doc_ids"]) == (2, 1)
    retriever.set_ctx_encoder_tokenizer(retrieval.question_tokenizer())
    assert "tokenized_doc_ids" in call(retriever)
    retriever.return_tokenized_docs = False
    assert "tokenized_doc_ids" not in call(retriever)
