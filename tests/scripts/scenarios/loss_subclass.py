"""Subclasses that override ``get_nll`` to divide the loss by the length; generation ranks by this loss."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from tests.scripts import material


def sequence_class(lib: ModuleType) -> Any:
    class PerWordRagSequence(lib.RagSequenceForGeneration):
        def get_nll(
            self,
            seq_logits,
            doc_scores,
            target,
            reduce_loss=False,
            epsilon=0.0,
            exclude_bos_score=False,
            n_docs=None,
        ):
            loss = super().get_nll(
                seq_logits,
                doc_scores,
                target,
                epsilon=epsilon,
                exclude_bos_score=exclude_bos_score,
                n_docs=n_docs,
            )
            loss = loss / target.ne(self.config.generator.pad_token_id).sum(1) ** 2
            return loss.mean() if reduce_loss else loss

    return PerWordRagSequence


def token_class(lib: ModuleType) -> Any:
    class PerWordRagToken(lib.RagTokenForGeneration):
        def get_nll(self, seq_logits, doc_scores, target, reduce_loss=False, epsilon=0.0, n_docs=None):
            loss = super().get_nll(seq_logits, doc_scores, target, epsilon=epsilon, n_docs=n_docs)
            loss = loss / target.ne(self.config.generator.pad_token_id).sum(1)
            return loss.mean() if reduce_loss else loss

    return PerWordRagToken


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for formulation, make in {"token": token_class, "sequence": sequence_class}.items():
        checkpoint = material.save_checkpoint(folder / formulation, formulation)
        model, tokenizer = material.load(lib, checkpoint, cls=make(lib))
        input_ids, labels = material.question_ids(tokenizer, 2), material.answer_ids(tokenizer, 2)
        results[f"{formulation} loss"] = model(input_ids, labels=labels).loss
        results[f"{formulation} mean"] = model(input_ids, labels=labels, reduce_loss=True).loss
        answers = model.generate(input_ids, num_beams=4, min_length=5, max_length=15, num_return_sequences=2)
        results[f"{formulation} answers"] = material.without_padding(answers)
    return results
