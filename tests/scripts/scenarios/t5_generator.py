"""RAG-Token with a T5 generator and a task prefix, as in abstractive question answering."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from tests.scripts import material


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint", generator="t5")
    model, tokenizer = material.load(lib, checkpoint)
    model.rag.generator.config.prefix = "answer: "
    input_ids, labels = material.question_ids(tokenizer, 2), material.answer_ids(tokenizer, 2)
    outputs = model(input_ids, labels=labels, output_retrieved=True)
    outputs.loss.mean().backward()
    return {
        "loss": outputs.loss,
        "contexts": tokenizer.batch_decode(outputs.context_input_ids, skip_special_tokens=True),
        "gradient": model.rag.generator.get_input_embeddings().weight.grad.norm(),
        "greedy": model.generate(input_ids, max_length=9),
        "beams": model.generate(input_ids, num_beams=3, max_length=9),
    }
