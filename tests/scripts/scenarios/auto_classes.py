"""A saved folder opened with AutoConfig, AutoTokenizer and AutoModel, as in the examples of the documentation."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer

from tests.scripts import material


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint", "sequence")
    model, tokenizer = material.load(lib, checkpoint, "sequence")
    results: dict[str, Any] = {}
    for order in ("model first", "retriever first"):
        target = folder / order
        target.mkdir()
        parts = [model, model.retriever] if order == "model first" else [model.retriever, model]
        for part in parts:
            part.save_pretrained(target)
        tokenizer.save_pretrained(target)
        results |= {f"{order}, {name}": value for name, value in open_folder(lib, target).items()}
    return results


def open_folder(lib: ModuleType, target: Path) -> dict[str, Any]:
    config = AutoConfig.from_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    retriever = lib.RagRetriever.from_pretrained(target, indexed_dataset=material.passages())
    input_ids = tokenizer(material.QUESTIONS[0], return_tensors="pt")["input_ids"]
    model = lib.RagModel.from_pretrained(target, retriever=retriever)
    results = {
        "config": isinstance(config, lib.RagConfig),
        "tokenizer": isinstance(tokenizer, lib.RagTokenizer),
        "n_docs": config.n_docs,
        "input_ids": input_ids,
        "scores": model(input_ids, decoder_input_ids=material.answer_ids(tokenizer)).doc_scores,
        "class": "RagSequenceForGeneration",
    }
    try:
        auto = AutoModel.from_pretrained(target, retriever=retriever)
        results["scores of AutoModel"] = auto(
            input_ids, decoder_input_ids=material.answer_ids(tokenizer)
        ).doc_scores
        results["class of AutoModelForSeq2SeqLM"] = type(
            AutoModelForSeq2SeqLM.from_pretrained(target)
        ).__name__
    except ValueError:
        results["scores of AutoModel"] = results["class of AutoModelForSeq2SeqLM"] = "unknown"
    return results
