"""Losses computed outside ``forward``, with ``get_nll`` and ``marginalize``, also by positional arguments."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.scripts import material


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    checkpoint = material.save_checkpoint(folder / "checkpoint")
    results: dict[str, Any] = {}
    for formulation in material.CLASSES:
        model, tokenizer = material.load(lib, checkpoint, formulation)
        input_ids, labels = material.question_ids(tokenizer, 2), material.answer_ids(tokenizer, 2)
        outputs = model(input_ids, decoder_input_ids=labels, use_cache=False)
        logits, scores = outputs.logits, outputs.doc_scores
        results[formulation] = {
            "nll": model.get_nll(logits, scores, labels),
            "summed": model.get_nll(logits, scores, labels, True),
            "smoothed": model.get_nll(logits, scores, labels, reduce_loss=True, epsilon=0.1, n_docs=3),
            "smoothed by position": model.get_nll(logits, scores, labels, False, 0.2),
        }
        model.config.label_smoothing = 0.1
        results[formulation]["label smoothing"] = model(input_ids, labels=labels).loss
        model.config.label_smoothing = 0.0
        model.config.reduce_loss = True
        results[formulation]["configured"] = model(input_ids, labels=labels).loss
        loss = model.get_nll(logits, scores, labels, True)
        loss.backward()
        results[formulation]["gradient"] = model.question_encoder.get_input_embeddings().weight.grad

    results["sequence by position"] = model.get_nll(logits, scores, labels, False, 0.0, False, 3)
    token, tokenizer = material.load(lib, checkpoint)
    results["token by position"] = token.get_nll(logits, scores, labels, False, 0.0, 3)
    results["mixture"] = token.marginalize(logits, scores)
    results["mixture of three"] = token.marginalize(logits, scores, 3).exp().sum(-1)
    results["shifted"] = token.shift_tokens_right(labels)
    results["shifted from"] = token.shift_tokens_right(labels, start_token_id=0)
    with torch.no_grad():
        marginalized = token(
            input_ids, decoder_input_ids=token.shift_tokens_right(labels), do_marginalize=True
        )
    results["log-probabilities"] = marginalized.logits.gather(-1, labels[..., None]).squeeze(-1)
    return results
