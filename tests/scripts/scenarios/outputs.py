"""Outputs by position and by name: output[0], to_tuple, shapes, attentions and hidden states."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.scripts import material


def shape(value: Any) -> Any:
    if torch.is_tensor(value):
        return list(value.shape)
    return [shape(item) for item in value] if isinstance(value, tuple) else type(value).__name__


@torch.no_grad()
def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for formulation in material.CLASSES:
        checkpoint = material.save_checkpoint(folder / formulation, formulation)
        model, tokenizer = material.load(lib, checkpoint, formulation)
        model.config.generator._attn_implementation = "eager"
        model.generator.set_attn_implementation("eager")
        input_ids, labels = material.question_ids(tokenizer, 2), material.answer_ids(tokenizer, 2)

        outputs = model(input_ids, labels=labels, output_retrieved=True)
        attentions = model(input_ids, labels=labels, output_attentions=True)
        mask = outputs.context_attention_mask  # states and attentions of padding have no meaning
        results[formulation] = {
            "names": [name for name in outputs if outputs[name] is not None],
            "positions": [shape(value) for value in outputs.to_tuple()],
            "first": outputs[0],
            "second": outputs[1],
            "slice": shape(outputs[1:3]),
            "encoder": outputs.generator_enc_last_hidden_state * mask[..., None],
            "cross attentions": attentions.generator_cross_attentions,
            "decoder attentions": attentions.generator_dec_attentions,
            "encoder attentions": [
                layer * mask[:, None, :, None] for layer in attentions.generator_enc_attentions
            ],
            "mask": mask,
            "vectors": outputs.retrieved_doc_embeds,
            "question": outputs.question_encoder_last_hidden_state,
        }
        copied = material.rag_name(lib, "RetrievAugLMMarginOutput")(*outputs[:3])
        results[f"{formulation} copied"] = [copied.loss, copied.doc_scores, copied.past_key_values is None]
        without = model(input_ids, decoder_input_ids=labels)
        results[f"{formulation} without labels"] = {
            "first": without[0],
            "second": without[1],
            "cache": hasattr(without.past_key_values, "get_seq_length"),
            "encoder": shape(without.generator_enc_last_hidden_state),
            "loss": without.loss,
        }
        inner = model.rag(input_ids, decoder_input_ids=labels, use_cache=False)
        results[f"{formulation} inner"] = [inner[0], inner[1]]
        hidden = model(input_ids, decoder_input_ids=labels, output_hidden_states=True)
        results[f"{formulation} hidden states"] = hidden.generator_dec_hidden_states
        results[f"{formulation} hidden states of the generator"] = model.generator(
            outputs.context_input_ids,
            attention_mask=outputs.context_attention_mask,
            decoder_input_ids=labels.repeat_interleave(3, dim=0),
            output_hidden_states=True,
        ).decoder_hidden_states
    return results
