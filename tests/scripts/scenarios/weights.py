"""Weights by name: frozen parts, state dictionaries through torch.save, larger embeddings, shared parts."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers as tf

from tests.scripts import material
from tests.support import retrieval


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    model, tokenizer = material.load(lib, checkpoint)
    input_ids, labels = material.question_ids(tokenizer, 2), material.answer_ids(tokenizer, 2)
    results: dict[str, Any] = {
        "names": sorted(name for name, _ in model.named_parameters()),
        "shapes": {name: list(value.shape) for name, value in sorted(model.state_dict().items())},
        "n_parameters": model.num_parameters(),
    }
    for parameter in model.rag.question_encoder.parameters():
        parameter.requires_grad = False
    model(input_ids, labels=labels).loss.sum().backward()
    results["trained"] = sorted(name for name, value in model.named_parameters() if value.grad is not None)

    torch.save(model.state_dict(), folder / "weights.pt")
    fresh = lib.RagTokenForGeneration(lib.RagConfig.from_pretrained(checkpoint))
    fresh.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    fresh.rag.retriever = model.rag.retriever
    results["loss of a copy"] = fresh.eval()(input_ids, labels=labels).loss

    parts = lib.RagSequenceForGeneration(
        question_encoder=model.question_encoder,
        generator=model.generator,
        retriever=model.retriever,
        n_docs=2,
        retrieval_vector_size=model.config.retrieval_vector_size,
    )
    results["loss of parts"] = parts.eval()(input_ids, labels=labels).loss
    results["n_docs of parts"] = parts.config.n_docs

    model.generator.save_pretrained(folder / "generator")
    model.question_encoder.save_pretrained(folder / "encoder")
    generator = tf.BartForConditionalGeneration.from_pretrained(folder / "generator")
    results["generator"] = generator.get_input_embeddings().weight.norm()
    inner = model.get_input_embeddings(), model.get_output_embeddings()
    results["embeddings"] = [list(layer.weight.shape) for layer in inner]

    model.generator.resize_token_embeddings(len(retrieval.generator_tokenizer()) + 3)
    results["larger"] = list(model.get_input_embeddings().weight.shape)
    results["modes"] = [
        model.training,
        model.train().rag.generator.training,
        model.half().dtype == torch.half,
    ]
    return results
