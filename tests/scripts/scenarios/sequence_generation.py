"""RAG-Sequence's ``generate`` with common options: candidates, contexts without a question, no retriever."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.scripts import material


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint", "sequence")
    model, tokenizer = material.load(lib, checkpoint, "sequence")
    input_ids = material.question_ids(tokenizer, 2)
    options: dict[str, dict[str, Any]] = {
        "greedy": {},
        "beams": {"num_beams": 3},
        "candidates": {"num_beams": 2, "num_return_sequences": 3},
        "duplicates": {"num_beams": 2, "do_deduplication": False},
        "no repetition": {"num_beams": 2, "no_repeat_ngram_size": 2},
        "length penalty": {"num_beams": 3, "length_penalty": 0.2},
        "new tokens": {"num_beams": 2, "max_length": None, "max_new_tokens": 7},
    }
    limits = {"min_length": 5, "max_length": 10}
    results: dict[str, Any] = {
        name: material.without_padding(model.generate(input_ids, **{**limits, **chosen}))
        for name, chosen in options.items()
    }
    hidden = model.question_encoder(input_ids)[0]
    docs = model.retriever(input_ids, hidden.detach().numpy(), return_tensors="pt")
    doc_scores = torch.einsum("bd,bkd->bk", hidden, docs["retrieved_doc_embeds"])
    alone = lib.RagSequenceForGeneration.from_pretrained(checkpoint)
    answers = alone.generate(
        context_input_ids=docs["context_input_ids"],
        context_attention_mask=docs["context_attention_mask"],
        doc_scores=doc_scores,
        num_beams=2,
        **limits,
    )
    results["contexts"] = material.without_padding(answers)
    rows = [torch.tensor([[2, 5, 6]]), torch.tensor([[2, 7], [2, 8]])]
    results["joined"] = lib.RagSequenceForGeneration._cat_and_pad(rows, pad_token_id=1)
    results["text"] = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return results
