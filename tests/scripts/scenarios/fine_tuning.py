"""A training loop over a DataLoader, with three ways to get a scalar loss."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.utils.data import DataLoader

from tests.scripts import material


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    results = {}
    for formulation in material.CLASSES:
        checkpoint = material.save_checkpoint(folder / formulation, formulation)
        for way in ("mean", "reduce_loss", "as in the examples"):
            results[f"{formulation}, {way}"] = train(lib, checkpoint, formulation, way)
    return results


def train(lib: ModuleType, checkpoint: str, formulation: str, way: str) -> dict[str, Any]:
    model, tokenizer = material.load(lib, checkpoint, formulation)

    def collate(pairs: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
        questions, answers = map(list, zip(*pairs, strict=True))
        source = tokenizer.question_encoder(questions, padding=True, return_tensors="pt")
        target = tokenizer.generator(answers, padding=True, return_tensors="pt")
        return {
            "input_ids": source["input_ids"],
            "attention_mask": source["attention_mask"],
            "labels": target["input_ids"],
        }

    pairs = list(zip(material.QUESTIONS, material.ANSWERS, strict=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-4)
    model.train()
    losses, norms = [], []
    for batch in DataLoader(pairs, batch_size=2, collate_fn=collate):
        optimizer.zero_grad()
        if way == "mean":
            loss = model(**batch)["loss"].mean()
        elif way == "reduce_loss":
            loss = model(**batch, reduce_loss=True, use_cache=False)[0]
        else:  # the targets twice, as decoder input and as labels
            loss = model(**batch, decoder_input_ids=batch["labels"], n_docs=2, reduce_loss=True).loss / 2
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses, "norms": norms, "weights": material.weights(model)}
