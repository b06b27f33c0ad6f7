"""An evaluation script: exact match of the best answer, and the titles of the retrieved passages."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.scripts import material

GOLD = ("Paris", "Rome", "Nile", "London")


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    results: dict[str, Any] = {}
    for formulation, name in material.CLASSES.items():
        retriever = lib.RagRetriever.from_pretrained(
            checkpoint, n_docs=2, **material.save_passages(folder / formulation)
        )
        model = getattr(lib, name).from_pretrained(checkpoint, retriever=retriever, n_docs=2)
        tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
        model.retriever.init_retrieval()
        results[f"{formulation} answers"] = answers(model, tokenizer)
        results[f"{formulation} titles"] = titles(model, tokenizer)
    token = results["token answers"]
    results["match"] = sum(best == gold for best, gold in zip(token, GOLD, strict=True)) / len(GOLD)
    return results


@torch.no_grad()
def answers(model: Any, tokenizer: Any) -> list[list[str]]:
    texts = []
    for question in material.QUESTIONS:
        inputs = tokenizer.question_encoder([question], return_tensors="pt", padding=True, truncation=True)
        generated = model.generate(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            num_beams=3,
            min_length=5,
            max_length=12,
            early_stopping=False,
            num_return_sequences=2,
            bad_words_ids=[[0, 0]],
            no_repeat_ngram_size=3,
        )
        texts.append(tokenizer.batch_decode(generated, skip_special_tokens=True))
    return texts


@torch.no_grad()
def titles(model: Any, tokenizer: Any) -> list[list[str]]:
    inputs = tokenizer.question_encoder(
        list(material.QUESTIONS), return_tensors="pt", padding=True, truncation=True
    )
    vectors = model.rag.question_encoder(inputs["input_ids"], attention_mask=inputs["attention_mask"])[0]
    result = model.retriever(
        inputs["input_ids"],
        vectors.cpu().detach().to(torch.float32).numpy(),
        prefix=model.rag.generator.config.prefix if hasattr(model.generator.config, "prefix") else None,
        n_docs=model.config.n_docs,
        return_tensors="pt",
    )
    docs = model.retriever.index.get_doc_dicts(result.doc_ids)
    return [[title.strip('"') for title in doc["title"]] for doc in docs]
