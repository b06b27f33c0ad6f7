"""A CSV file as knowledge source: split into passages, embedded with DPR, indexed with FAISS, and queried.

Tutorials on custom knowledge do this: data set and index go through the datasets library and the disk.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import faiss
import torch
from datasets import load_dataset
from transformers import DPRContextEncoder

from tests.scripts import material
from tests.support import retrieval

WORDS_PER_PASSAGE = 6


def write_csv(path: Path) -> str:
    rows = (f"{title.strip(chr(34))}\t{' '.join(text.split())}\n" for title, text in retrieval.PASSAGES)
    path.write_text("".join(rows))
    return str(path)


def cut(documents: dict[str, list[str]]) -> dict[str, list[str]]:
    titles, texts = [], []
    for title, text in zip(documents["title"], documents["text"], strict=True):
        words = text.split()
        for start in range(0, len(words), WORDS_PER_PASSAGE):
            titles.append(title or "")
            texts.append(" ".join(words[start : start + WORDS_PER_PASSAGE]))
    return {"title": titles, "text": texts}


def main(lib: ModuleType, folder: Path) -> dict[str, Any]:
    encoder = material.random_model(DPRContextEncoder, material.question_encoder_config(), seed=3)
    encoder_tokenizer = retrieval.question_tokenizer()

    @torch.no_grad()
    def embed(batch: dict[str, list[str]]) -> dict[str, Any]:
        tokens = encoder_tokenizer(
            batch["title"], batch["text"], truncation=True, padding=True, return_tensors="pt"
        )
        vectors = encoder(tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output
        return {"embeddings": vectors.numpy()}

    documents = load_dataset(
        "csv",
        data_files=write_csv(folder / "documents.csv"),
        delimiter="\t",
        column_names=["title", "text"],
        split="train",
        cache_dir=str(folder / "cache"),
    )
    dataset = documents.map(cut, batched=True, load_from_cache_file=False)
    dataset = dataset.map(embed, batched=True, batch_size=4, load_from_cache_file=False)
    passages_path, index_path = str(folder / "passages"), str(folder / "passages.faiss")
    dataset.save_to_disk(passages_path)
    index = faiss.IndexHNSWFlat(encoder.config.hidden_size, 32, faiss.METRIC_INNER_PRODUCT)
    dataset.add_faiss_index("embeddings", custom_index=index)
    dataset.get_index("embeddings").save(index_path)

    checkpoint = material.save_checkpoint(folder / "checkpoint", "sequence")
    retriever = lib.RagRetriever.from_pretrained(
        checkpoint, index_name="custom", passages_path=passages_path, index_path=index_path
    )
    model = lib.RagSequenceForGeneration.from_pretrained(checkpoint, retriever=retriever)
    tokenizer = lib.RagTokenizer.from_pretrained(checkpoint)
    answers = {}
    for question in material.QUESTIONS:
        input_ids = tokenizer.question_encoder(question, return_tensors="pt")["input_ids"]
        generated = model.generate(
            input_ids, num_beams=2, min_length=5, max_length=12, no_repeat_ngram_size=2
        )
        answers[question] = [
            material.without_padding(generated),
            tokenizer.batch_decode(generated, skip_special_tokens=True)[0],
        ]
    return {"passages": len(dataset), "answers": answers}
