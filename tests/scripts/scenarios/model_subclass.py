"""A subclass of RagModel with the full ``forward`` signature of transformers 4, inside a model for generation.

Papers that weight passages differently do this. Here the scores are divided by a temperature.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.scripts import material


def rag_model_class(lib: ModuleType) -> Any:
    class SharpRagModel(lib.RagModel):
        temperature = 0.5

        def forward(
            self,
            input_ids=None,
            attention_mask=None,
            encoder_outputs=None,
            decoder_input_ids=None,
            decoder_attention_mask=None,
            past_key_values=None,
            doc_scores=None,
            context_input_ids=None,
            context_attention_mask=None,
            use_cache=None,
            output_attentions=None,
            output_hidden_states=None,
            output_retrieved=None,
            n_docs=None,
            **cache,  # transformers 5.24 calls past_key_values cache
        ):
            outputs = super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                encoder_outputs=encoder_outputs,
                decoder_input_ids=decoder_input_ids,
                decoder_attention_mask=decoder_attention_mask,
                past_key_values=past_key_values,
                doc_scores=doc_scores,
                context_input_ids=context_input_ids,
                context_attention_mask=context_attention_mask,
                use_cache=use_cache,
                output_attentions=output_attentions,
                output_hidden_states=output_hidden_states,
                output_retrieved=output_retrieved,
                n_docs=n_docs,
                **cache,
            )
            outputs["doc_scores"] = outputs.doc_scores / self.temperature
            return outputs

    return SharpRagModel


def generation_class(lib: ModuleType, base: Any) -> Any:
    class SharpRag(base):
        def __init__(self, config=None, question_encoder=None, generator=None, retriever=None, **kwargs):
            super().__init__(config, question_encoder, generator, retriever, **kwargs)
            self.rag = rag_model_class(lib)(
                config, self.rag.question_encoder, self.rag.generator, retriever=retriever
            )

    return SharpRag


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for formulation, name in material.CLASSES.items():
        checkpoint = material.save_checkpoint(folder / formulation, formulation)
        cls = generation_class(lib, getattr(lib, name))
        model, tokenizer = material.load(lib, checkpoint, cls=cls)
        input_ids = material.question_ids(tokenizer, 2)
        outputs = model(input_ids, labels=material.answer_ids(tokenizer, 2))
        results[f"{formulation} class"] = type(model.rag).__name__
        results[f"{formulation} loss"] = outputs.loss
        results[f"{formulation} probabilities"] = torch.softmax(outputs.doc_scores, dim=-1)
        for beams in (1, 3):
            answers = model.generate(
                input_ids, num_beams=beams, min_length=5, max_length=9, num_return_sequences=beams
            )
            results[f"{formulation} answers of {beams}"] = material.without_padding(answers)
    return results
