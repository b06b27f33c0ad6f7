"""A greedy decoding loop outside ``generate``: contexts are encoded once, and the cache grows token by token."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.scripts import material

N_TOKENS = 6


@torch.no_grad()
def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    model, tokenizer = material.load(lib, material.save_checkpoint(folder / "checkpoint"))
    input_ids = material.question_ids(tokenizer, 2)
    vectors = model.question_encoder(input_ids)[0]
    docs = model.retriever(input_ids, vectors.numpy(), n_docs=2, return_tensors="pt")
    doc_scores = torch.einsum("bd,bkd->bk", vectors, docs["retrieved_doc_embeds"])
    mask = docs["context_attention_mask"]
    encoder = model.rag.generator.get_encoder()
    encoder_outputs = encoder(docs["context_input_ids"], attention_mask=mask, return_dict=True)
    arguments = {
        "encoder_outputs": encoder_outputs,
        "context_attention_mask": mask,
        "doc_scores": doc_scores,
        "n_docs": 2,
        "do_marginalize": True,
    }

    start = torch.full((2, 1), model.config.generator.decoder_start_token_id)
    answers, log_probs = start, []
    for _ in range(N_TOKENS):
        outputs = model(decoder_input_ids=answers, use_cache=False, **arguments)
        log_probs.append(outputs.logits[:, -1])
        answers = torch.cat([answers, outputs.logits[:, -1:].argmax(-1)], dim=1)

    cached, cache = start, None
    for _ in range(N_TOKENS):
        outputs = model(decoder_input_ids=cached[:, -1:], past_key_values=cache, use_cache=True, **arguments)
        cache = outputs.past_key_values
        cached = torch.cat([cached, outputs.logits[:, -1:].argmax(-1)], dim=1)
    return {"answers": answers, "log-probabilities": torch.stack(log_probs), "cached": cached}
