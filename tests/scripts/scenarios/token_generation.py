"""RAG-Token's ``generate`` with common options: none, a GenerationConfig, sampling, processors, criteria."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    NoRepeatNGramLogitsProcessor,
    StoppingCriteriaList,
)

from tests.scripts import material


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    model, tokenizer = material.load(lib, material.save_checkpoint(folder / "checkpoint"))
    inputs = tokenizer(list(material.QUESTIONS[:2]), return_tensors="pt")
    settings = GenerationConfig(
        max_length=11,
        num_beams=2,
        num_return_sequences=2,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
    )
    options: dict[str, dict[str, Any]] = {
        "nothing": {},
        "max_length": {"max_length": 7},
        "min_length": {"min_length": 6, "max_length": 8, "num_beams": 2},
        "configuration": {"generation_config": settings},
        "configuration and keyword": {"generation_config": settings, "num_beams": 3, "max_length": 6},
        "length penalty": {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True, "max_length": 9},
        "no repetition": {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "max_length": 12},
        "prefix": {
            "prefix_allowed_tokens_fn": lambda batch_id, tokens: [300 + batch_id, 310, 320, 330],
            "num_beams": 2,
            "max_length": 8,
        },
        "processor": {
            "logits_processor": LogitsProcessorList([NoRepeatNGramLogitsProcessor(1)]),
            "max_length": 9,
        },
        "criterion": {"stopping_criteria": StoppingCriteriaList([MaxLengthCriteria(max_length=5)])},
        "no cache": {"use_cache": False, "max_length": 7, "num_beams": 2},
        "other passages": {"n_docs": 1, "max_length": 7},
    }
    results: dict[str, Any] = {
        name: model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], **chosen)
        for name, chosen in options.items()
    }
    results["longest"] = model.generate(inputs["input_ids"], min_length=20).shape[1]
    for seed in range(3):
        torch.manual_seed(seed)
        results[f"sample {seed}"] = model.generate(
            inputs["input_ids"], do_sample=True, top_k=20, temperature=0.8, max_length=8
        )
    whole = model.generate(
        inputs["input_ids"], max_length=7, num_beams=2, return_dict_in_generate=True, output_scores=True
    )
    results["whole"] = [whole.sequences, whole.sequences_scores, whole["scores"][0]]
    return results
