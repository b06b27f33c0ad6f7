"""End-to-end training: the context encoder is trained, the passages are embedded again, the index is rebuilt."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import DPRContextEncoder

from tests.scripts import material
from tests.support import retrieval


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    return {
        "methods": train(lib, checkpoint, folder / "methods", by_methods=True),
        "attributes": train(lib, checkpoint, folder / "attributes", by_methods=False),
    }


def train(lib: ModuleType, checkpoint: str, folder: Path, *, by_methods: bool) -> dict[str, Any]:
    retriever = lib.RagRetriever.from_pretrained(checkpoint, **material.save_passages(folder))
    model = lib.RagTokenForGeneration.from_pretrained(checkpoint, retriever=retriever)
    tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
    encoder = material.random_model(DPRContextEncoder, material.question_encoder_config(), seed=5)
    results: dict[str, Any] = {
        "before": [retriever.return_tokenized_docs, model.rag.context_encoder_training]
    }
    if by_methods:
        retriever.set_ctx_encoder_tokenizer(retrieval.question_tokenizer())
        model.set_context_encoder_for_training(encoder)
    else:
        retriever.ctx_encoder_tokenizer = retrieval.question_tokenizer()
        retriever.return_tokenized_docs = True
        model.rag.ctx_encoder = encoder
        model.rag.context_encoder_training = True
    results["after"] = [retriever.return_tokenized_docs, model.rag.context_encoder_training]

    input_ids, labels = material.question_ids(tokenizer, 2), material.answer_ids(tokenizer, 2)
    vectors = model.question_encoder(input_ids)[0].detach().numpy()
    docs = retriever(input_ids, vectors, return_tensors="pt")
    results["tokens"] = {name: docs[name] for name in docs if name.startswith("tokenized_doc")}

    parameters = [*model.parameters(), *encoder.parameters()]
    optimizer = torch.optim.SGD({id(p): p for p in parameters}.values(), lr=0.01)
    results["losses"] = []
    for _ in range(2):
        loss = model(input_ids, labels=labels, reduce_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        results["losses"].append(loss.item())
    results["gradient"] = encoder.ctx_encoder.bert_model.embeddings.word_embeddings.weight.grad

    reindex(retriever, encoder, folder)
    results["passages"] = retriever(input_ids, vectors, return_tensors="pt")["doc_ids"]
    return results


@torch.no_grad()
def reindex(retriever: Any, encoder: Any, folder: Path) -> None:
    """Embed all passages with the trained encoder, and let the retriever open the new index."""
    passages = material.passages()
    passages.drop_index("embeddings")
    tokens = retriever.ctx_encoder_tokenizer(
        list(passages["title"]), list(passages["text"]), truncation=True, padding=True, return_tensors="pt"
    )
    vectors = encoder(tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output.numpy()
    fresh = passages.remove_columns("embeddings").add_column("embeddings", list(vectors))
    retriever.config.passages_path = str(folder / "fresh")
    retriever.config.index_path = str(folder / "fresh.faiss")
    fresh.save_to_disk(retriever.config.passages_path)
    fresh.add_faiss_index("embeddings", string_factory="Flat", metric_type=0)
    fresh.get_index("embeddings").save(retriever.config.index_path)
    retriever.index = retriever._build_index(retriever.config)
    retriever.init_retrieval()
