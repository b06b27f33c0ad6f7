"""The three steps of the documentation: encode the question, retrieve, and pass the contexts to the model."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.scripts import material


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    retriever = lib.RagRetriever.from_pretrained(checkpoint, indexed_dataset=material.passages())
    tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
    input_ids = material.question_ids(tokenizer, 2)
    labels = material.answer_ids(tokenizer, 2)
    results: dict[str, Any] = {}
    for name in material.CLASSES.values():
        model = getattr(lib, name).from_pretrained(checkpoint)  # without a retriever
        question_hidden_states = model.question_encoder(input_ids)[0]
        docs = retriever(input_ids.numpy(), question_hidden_states.detach().numpy(), return_tensors="pt")
        doc_scores = torch.bmm(
            question_hidden_states.unsqueeze(1), docs["retrieved_doc_embeds"].float().transpose(1, 2)
        ).squeeze(1)
        contexts = {
            "context_input_ids": docs["context_input_ids"],
            "context_attention_mask": docs["context_attention_mask"],
            "doc_scores": doc_scores,
        }
        outputs = model(**contexts, decoder_input_ids=labels)
        answers = model.generate(**contexts, num_beams=2, min_length=5, max_length=10)
        results[name] = {
            "logits": outputs.logits,
            "loss": model(**contexts, labels=labels, reduce_loss=True).loss,
            "answers": tokenizer.batch_decode(answers, skip_special_tokens=True),
            **contexts,
        }
    lists = retriever(input_ids.tolist(), question_hidden_states.detach().numpy(), n_docs=2)
    arrays = retriever(
        input_ids, question_hidden_states.detach().numpy(), prefix="answer: ", n_docs=1, return_tensors="np"
    )
    vectors, ids, doc_dicts = retriever.retrieve(question_hidden_states.detach().numpy(), 2)
    processed = retriever.postprocess_docs(doc_dicts, ["Who?", "Where?"], None, n_docs=2, return_tensors="pt")
    results["retrieve"] = [vectors, ids, [doc["title"] for doc in doc_dicts]]
    results["postprocess_docs"] = list(processed)
    results["lists"] = {name: lists[name] for name in ("context_input_ids", "doc_ids")}
    results["arrays"] = {name: arrays[name] for name in ("context_input_ids", "doc_ids")}
    results["prefixed"] = tokenizer.batch_decode(arrays["context_input_ids"], skip_special_tokens=True)
    return results
