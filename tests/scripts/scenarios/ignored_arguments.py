"""Arguments that ``forward`` does not use, which tokenizers and older scripts add to a batch."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from tests.scripts import material


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    results: dict[str, Any] = {}
    for formulation in material.CLASSES:
        model, tokenizer = material.load(lib, checkpoint, formulation)
        batch = tokenizer(list(material.QUESTIONS[:2]), return_tensors="pt")
        labels = material.answer_ids(tokenizer, 2)
        results[formulation] = [
            model(**batch, labels=labels).loss,
            model(**batch, labels=labels, return_dict=True, question=["a", "b"]).loss,
            model(**batch, labels=labels, decoder_start_token_id=2, early_stopping=True).loss,
        ]
    inner = lib.RagModel.from_pretrained(checkpoint, retriever=model.retriever)
    results["inner"] = inner(**batch, decoder_input_ids=labels, unused=1).logits
    return results
