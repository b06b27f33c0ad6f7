"""A class around ``generate``, as in web applications: texts in, texts out, in batches."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.scripts import material


class Answerer:
    def __init__(self, lib: ModuleType, checkpoint: str, **data: Any) -> None:
        self.device = torch.device("cpu")
        self.tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
        self.retriever = lib.RagRetriever.from_pretrained(checkpoint, **data)
        self.model = lib.RagTokenForGeneration.from_pretrained(checkpoint, retriever=self.retriever)
        self.model = self.model.to(self.device)
        self.model.eval()

    def __call__(self, *questions: str, batch_size: int = 2, **options: Any) -> list[str]:
        answers: list[str] = []
        for start in range(0, len(questions), batch_size):
            batch = self.tokenizer(
                list(questions[start : start + batch_size]), padding="longest", return_tensors="pt"
            )
            with torch.no_grad():
                generated = self.model.generate(
                    input_ids=batch["input_ids"].to(self.device),
                    attention_mask=batch["attention_mask"].to(self.device),
                    **options,
                )
            answers += self.tokenizer.batch_decode(generated, skip_special_tokens=True)
        return [answer.strip() for answer in answers]


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    ask = Answerer(lib, checkpoint, **material.save_passages(folder / "data"))
    question = material.QUESTIONS[0]
    results: dict[str, Any] = {
        "answers": ask(*material.QUESTIONS, num_beams=2, max_length=10),
        "one passage": ask(question, n_docs=1, max_length=10),
        "decoded": ask.tokenizer.decode([5, 6, 7]),
        "input_ids": ask.tokenizer(question, return_tensors="pt")["input_ids"],
    }
    # The call in the cards of the released checkpoints, which transformers 5 no longer has.
    try:
        inputs = ask.tokenizer.prepare_seq2seq_batch(question, return_tensors="pt")
        results["input_ids of the cards"] = inputs["input_ids"]
    except AttributeError:
        results["input_ids of the cards"] = None
    return results
