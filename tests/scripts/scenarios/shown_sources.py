"""An application that shows its sources: the passages behind an answer, with their probabilities."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.scripts import material
from tests.support import retrieval


@torch.no_grad()
def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint", output_retrieved=True)
    urls = [f"https://example.org/{row}" for row in range(len(retrieval.PASSAGES))]
    dataset = retrieval.dataset(url=urls)
    retriever = lib.RagRetriever.from_pretrained(checkpoint, indexed_dataset=dataset)
    model = lib.RagTokenForGeneration.from_pretrained(checkpoint, retriever=retriever)
    tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
    results: dict[str, Any] = {}
    for question in material.QUESTIONS:
        input_ids = tokenizer(question, return_tensors="pt")["input_ids"]
        answer = model.generate(input_ids, num_beams=2, max_length=10)
        outputs = model(input_ids, labels=answer)
        docs = model.retriever.index.get_doc_dicts(outputs.retrieved_doc_ids.numpy())[0]
        prior = torch.softmax(outputs.doc_scores, dim=-1)[0]
        by_passage = outputs.logits.log_softmax(-1)[:, :-1]  # (K, T-1, V)
        likelihood = by_passage.gather(-1, answer[:, 1:].repeat(len(prior), 1)[..., None]).sum((1, 2))
        results[question] = {
            "answer": tokenizer.decode(answer[0], skip_special_tokens=True),
            "sources": list(zip(docs["title"], docs["url"], prior.tolist(), strict=True)),
            "posterior": torch.softmax(prior.log() + likelihood, dim=0),
            "contexts": tokenizer.batch_decode(outputs.context_input_ids, skip_special_tokens=True),
            "score": outputs.loss,
        }
    return results
