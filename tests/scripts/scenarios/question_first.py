"""A retriever that overrides ``postprocess_docs``, with transformers' signature, to put the question first."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from tests.scripts import material


def retriever_class(lib: ModuleType) -> Any:
    class QuestionFirstRetriever(lib.RagRetriever):
        def postprocess_docs(self, docs, input_strings, prefix, n_docs, return_tensors=None):
            texts = []
            for question, doc in zip(input_strings, docs, strict=True):
                for title, text in list(zip(doc["title"], doc["text"], strict=True))[:n_docs]:
                    texts.append(f"{prefix or ''}question: {question} context: {title} | {text}")
            encoded = self.generator_tokenizer(
                texts,
                max_length=self.config.max_combined_length,
                padding="max_length",
                truncation=True,
                return_tensors=return_tensors,
            )
            return encoded["input_ids"], encoded["attention_mask"]

    return QuestionFirstRetriever


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for formulation in material.CLASSES:
        checkpoint = material.save_checkpoint(folder / formulation, formulation, max_combined_length=60)
        retriever = retriever_class(lib).from_pretrained(checkpoint, indexed_dataset=material.passages())
        model = getattr(lib, material.CLASSES[formulation]).from_pretrained(checkpoint)
        model.set_retriever(retriever)
        tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
        input_ids = material.question_ids(tokenizer, 2)
        outputs = model(input_ids, labels=material.answer_ids(tokenizer, 2), output_retrieved=True)
        results[formulation] = {
            "contexts": tokenizer.batch_decode(outputs.context_input_ids, skip_special_tokens=True),
            "loss": outputs.loss,
            "answers": material.without_padding(
                model.generate(input_ids, num_beams=2, min_length=5, max_length=9)
            ),
        }
    return results
