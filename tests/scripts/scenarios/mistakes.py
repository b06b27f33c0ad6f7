"""User errors that scripts catch, by the exception class that they catch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from datasets import Dataset

from tests.scripts import material
from tests.support import models


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    model, tokenizer = material.load(lib, checkpoint)
    alone = lib.RagSequenceForGeneration.from_pretrained(checkpoint)
    custom_index = material.rag_name(lib, "CustomHFIndex")
    no_index = material.passages()
    no_index.drop_index("embeddings")
    few_columns = Dataset.from_dict({"title": ["Paris"], "text": ["a city"]})
    labels, a_file = material.answer_ids(tokenizer), folder / "file"
    a_file.write_text("")
    input_ids = material.question_ids(tokenizer)
    contexts = {
        "context_input_ids": labels.repeat(3, 1),
        "context_attention_mask": labels.repeat(3, 1) * 0 + 1,
        "doc_scores": model.question_encoder(input_ids)[0][:, :2],
    }

    def retriever(**arguments: Any) -> Any:
        return lib.RagRetriever.from_pretrained(checkpoint, **arguments)

    mistakes: dict[str, tuple[type[Exception], Callable[[], Any]]] = {
        "custom without paths": (ValueError, lambda: retriever(index_name="custom")),
        "data set without index": (ValueError, lambda: retriever(indexed_dataset=no_index)),
        "data set without vectors": (ValueError, lambda: custom_index(models.DIMENSION, few_columns)),
        "no data set": (TypeError, lambda: retriever(indexed_dataset=[{"title": "", "text": ""}])),
        "model without parts": (AssertionError, lib.RagTokenForGeneration),
        "no retriever, no contexts": (AssertionError, lambda: alone(input_ids, decoder_input_ids=labels)),
        "nothing to generate from": (AssertionError, alone.generate),
        "scores missing": (
            AssertionError,
            lambda: alone(**{**contexts, "doc_scores": None}, decoder_input_ids=labels),
        ),
        "n_docs and scores": (AssertionError, lambda: alone(**contexts, decoder_input_ids=labels)),
        "part without a name": (
            AssertionError,
            lambda: lib.RagModel.from_pretrained_question_encoder_generator(None, checkpoint),
        ),
        "tokenizer into a file": (ValueError, lambda: tokenizer.save_pretrained(str(a_file))),
        "no such folder": (OSError, lambda: lib.RagTokenizer.from_pretrained(str(folder / "nowhere"))),
        "way of generating": (
            ValueError,
            lambda: model.generate(input_ids, num_beams=4, num_beam_groups=2, diversity_penalty=0.5),
        ),
        "text for n_docs": (Exception, lambda: lib.RagConfig(n_docs="5")),
        "text for n_docs of a folder": (
            Exception,
            lambda: lib.RagConfig.from_pretrained(checkpoint, n_docs="5"),
        ),
    }
    return {name: material.caught(error, call) for name, (error, call) in mistakes.items()}
