"""The forward examples of the documentation: a question alone, and a question with an answer as labels."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from tests.scripts import material

QUESTION, ANSWER = "where is paris ?", "In Paris, there are 10 million people."


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
    retriever = lib.RagRetriever.from_pretrained(checkpoint, **material.save_passages(folder / "data"))
    inputs = tokenizer(QUESTION, return_tensors="pt")

    model = lib.RagModel.from_pretrained(checkpoint, retriever=retriever)
    alone = model(input_ids=inputs["input_ids"])
    results = {"logits": alone.logits, "doc_scores": alone.doc_scores}
    results["fields"] = sorted({*alone} - {"context_input_ids"})  # transformers returns (None,) here
    retrieved = model(inputs["input_ids"], attention_mask=inputs["attention_mask"], output_retrieved=True)
    results["doc_ids"] = retrieved.retrieved_doc_ids
    results["shape"] = list(retrieved.logits.shape)

    labels = tokenizer.generator(ANSWER, return_tensors="pt")["input_ids"]
    for name in material.CLASSES.values():
        model = getattr(lib, name).from_pretrained(checkpoint, retriever=retriever)
        outputs = model(input_ids=inputs["input_ids"], labels=labels)
        results[f"{name} loss"], results[f"{name} logits"] = outputs.loss, outputs.logits
        results[f"{name} without labels"] = model(input_ids=inputs["input_ids"]).logits
    results["labels"] = labels
    results["labels as documented"] = tokenizer(text_target=ANSWER, return_tensors="pt")["input_ids"]
    return results
