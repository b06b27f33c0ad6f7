"""Wrapped retrievers: a subclass that caches in ``__call__``, and a plain object that delegates."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from tests.scripts import material


def remembering_class(lib: ModuleType) -> Any:
    class RememberingRetriever(lib.RagRetriever):
        def __call__(
            self, question_input_ids, question_hidden_states, prefix=None, n_docs=None, return_tensors=None
        ):
            key = (tuple(map(tuple, question_input_ids.tolist())), n_docs)
            if not hasattr(self, "memory"):
                self.memory = {}
            if key not in self.memory:
                self.memory[key] = super().__call__(
                    question_input_ids,
                    question_hidden_states,
                    prefix=prefix,
                    n_docs=n_docs,
                    return_tensors=return_tensors,
                )
            return self.memory[key]

    return RememberingRetriever


class Delegate:
    """No subclass of anything; it counts the questions."""

    def __init__(self, retriever: Any) -> None:
        self.retriever = retriever
        self.questions = 0

    def __call__(self, question_input_ids: Any, question_hidden_states: Any, **kwargs: Any) -> Any:
        self.questions += len(question_hidden_states)
        return self.retriever(question_input_ids, question_hidden_states, **kwargs)


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
    input_ids, labels = material.question_ids(tokenizer, 2), material.answer_ids(tokenizer, 2)
    retriever = remembering_class(lib).from_pretrained(checkpoint, indexed_dataset=material.passages())
    model = lib.RagTokenForGeneration.from_pretrained(checkpoint, retriever=retriever)
    results: dict[str, Any] = {
        "losses": [model(input_ids, labels=labels, n_docs=n_docs).loss for n_docs in (3, 3, 2)],
        "remembered": len(retriever.memory),
    }
    delegate = Delegate(retriever)
    model.set_retriever(delegate)
    results["loss"] = model(input_ids, labels=labels).loss
    results["answers"] = model.generate(input_ids, max_length=8)
    results["questions"] = delegate.questions
    results["same"] = model.retriever is delegate
    return results
