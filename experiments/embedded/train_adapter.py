"""Train the embedded generator's LoRA adapter through ragweave's own marginal likelihood.

    python -m experiments.embedded.train_adapter --xquad DIR --factbook DIR --output ADAPTER

`--xquad` holds passages.jsonl, train.jsonl and dev.jsonl (id, question, answers, passage); `--factbook` what
`experiments.embedded.factbook_questions` and `examples/world_factbook/documents.py` write. For every question
the K best passages are retrieved with the embedded encoder; the loss is RAG-Token's -log p(y|x) over them, and
its gradient goes into the adapter alone. Checkpoints are compared on dev.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, get_linear_schedule_with_warmup

from ragweave import MemoryIndex, RagConfig, RagRetriever, RagTokenForGeneration, TextEncoder
from ragweave.embedded import CONTEXT_FIELDS, encoder_path, generator_path, load_generator
from ragweave.evaluation.metrics import exact_match, f1
from ragweave.knowledge.chunking import chunk
from ragweave.knowledge.passages import Document

Record = dict[str, Any]


class Corpus:
    """Questions over one collection of documents, with what the embedded encoder retrieves for them.

    Args:
        documents: JSON lines with id, title and text.
        encoder: The embedded encoder.
    """

    def __init__(self, documents: Path, encoder: TextEncoder) -> None:
        self.encoder = encoder
        rows = read_lines(documents)
        self.passages = [
            passage
            for row in rows
            for passage in chunk(Document(row["id"], row["title"], row["text"], str(documents)))
        ]
        titles, texts = [p.title for p in self.passages], [p.text for p in self.passages]
        self.index = MemoryIndex(texts, encoder.encode(texts, titles=titles), titles)

    def answerable(self, records: list[Record], k: int) -> list[Record]:
        """The questions whose answer stands in one of the K best passages: from others one learns to guess."""
        rows, _ = self.index.get_top_docs(self.encoder.encode([r["question"] for r in records]), k)
        return [
            record
            for record, own in zip(records, rows, strict=True)
            if any(record["answers"][0] in self.passages[row].text for row in own)
        ]

    def recall(self, records: list[Record], k: int) -> float:
        """Share of questions whose gold document has a passage among the K best."""
        vectors = self.encoder.encode([r["question"] for r in records])
        rows, _ = self.index.get_top_docs(vectors, k)
        hits = [
            r["passage"] in {self.passages[i].document_id for i in own}
            for r, own in zip(records, rows, strict=True)
        ]
        return sum(hits) / len(hits)


class Example:
    """Tokenises batches: contexts of the retrieved passages, their scores, labels."""

    def __init__(self, config: RagConfig, tokenizer: Any) -> None:
        self.config = config
        self.tokenizer = tokenizer

    def batch(self, corpus: Corpus, records: list[Record], k: int, scale: float) -> dict[str, Tensor]:
        """Contexts and scores of the K best passages, as `forward` takes them."""
        questions = [record["question"] for record in records]
        vectors = corpus.encoder.encode(questions)
        retriever = RagRetriever(self.config, None, self.tokenizer, index=corpus.index)
        found = retriever(
            None, vectors, n_docs=k, return_tensors="pt", question_strings=questions, padding="longest"
        )
        scores = torch.einsum("bd,bkd->bk", torch.from_numpy(vectors), found["retrieved_doc_embeds"])
        return {
            "context_input_ids": found["context_input_ids"],
            "context_attention_mask": found["context_attention_mask"],
            "doc_scores": scale * scores,
        }

    def labels(self, records: list[Record]) -> Tensor:
        """First answers with the end token, (B, T), padded with -100."""
        rows = [
            self.tokenizer(" " + r["answers"][0])["input_ids"] + [self.tokenizer.eos_token_id]
            for r in records
        ]
        width = max(len(row) for row in rows)
        return torch.tensor([row + [-100] * (width - len(row)) for row in rows])


def read_lines(path: Path) -> list[Record]:
    """Read a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def build_model(rank: int, start: Path | None) -> tuple[RagTokenForGeneration, Any]:
    """The embedded model with a fresh adapter, or one to go on from: bfloat16 base, float32 adapter."""
    from peft import LoraConfig

    generator = load_generator(dtype=torch.bfloat16, adapter=False)
    generator.add_adapter(
        LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    encoder = AutoModel.from_pretrained(encoder_path())
    if start is not None:
        generator.delete_adapter("default")
        generator.load_adapter(str(start), is_trainable=True)
    for name, parameter in generator.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.float()
    encoder.requires_grad_(False)
    config = RagConfig.from_question_encoder_generator_configs(
        encoder.config, generator.config, **CONTEXT_FIELDS
    )
    return RagTokenForGeneration(config, encoder, generator), AutoTokenizer.from_pretrained(generator_path())


def batches(
    data: list[tuple[Corpus, Record]], size: int, rng: random.Random
) -> Iterator[tuple[Corpus, list[Record]]]:
    """One epoch of batches, each from one corpus."""
    for_corpus: dict[int, list[tuple[Corpus, Record]]] = {}
    for item in data:
        for_corpus.setdefault(id(item[0]), []).append(item)
    made = []
    for items in for_corpus.values():
        rng.shuffle(items)
        made += [items[at : at + size] for at in range(0, len(items), size)]
    rng.shuffle(made)
    for items in made:
        yield items[0][0], [record for _, record in items]


@torch.no_grad()
def evaluate(
    model: RagTokenForGeneration,
    example: Example,
    corpus: Corpus,
    records: list[Record],
    k: int,
    scale: float,
) -> dict[str, float]:
    """Exact match and F1 of greedy answers."""
    model.eval()
    answers = []
    for at in range(0, len(records), 4):
        batch = example.batch(corpus, records[at : at + 4], k, scale)
        with torch.autocast("cpu", torch.bfloat16):
            ids = model.generate(**batch, max_new_tokens=24)
        answers += [
            text.strip() for text in example.tokenizer.batch_decode(ids[:, 1:], skip_special_tokens=True)
        ]
    pairs = list(zip(answers, records, strict=True))
    return {
        "exact_match": sum(exact_match(a, r["answers"]) for a, r in pairs) / len(pairs),
        "f1": sum(f1(a, r["answers"]) for a, r in pairs) / len(pairs),
    }


def main() -> None:
    """Train, evaluate and save the adapter."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--xquad", type=Path, required=True)
    parser.add_argument("--factbook", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--factbook-per-epoch", type=int, default=700)
    parser.add_argument("--n-docs", type=int, default=2)
    parser.add_argument("--scale", type=float, default=30.0)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--start", type=Path, help="checkpoint to go on from, with a schedule of its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate-every", type=int, default=180, help="steps")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)  # noqa: S311
    encoder = TextEncoder.from_pretrained(encoder_path(), dtype="auto")
    xquad = Corpus(args.xquad / "passages.jsonl", encoder)
    factbook = Corpus(args.factbook / "documents.jsonl", encoder)
    train = [(xquad, r) for r in xquad.answerable(read_lines(args.xquad / "train.jsonl"), args.n_docs)]
    dev = read_lines(args.xquad / "dev.jsonl")
    facts = rng.sample(read_lines(args.factbook / "train.jsonl"), 2 * args.epochs * args.factbook_per_epoch)
    facts = factbook.answerable(facts, args.n_docs)
    print(f"recall@5 on dev: {xquad.recall(dev, 5):.3f}; {len(train)} and {len(facts)} questions", flush=True)
    model, tokenizer = build_model(args.rank, args.start)
    example = Example(model.config, tokenizer)

    epochs = [
        list(
            batches(
                [*train, *((factbook, r) for r in rng.sample(facts, args.factbook_per_epoch))],
                args.batch_size,
                rng,
            )
        )
        for _ in range(args.epochs)
    ]
    total = sum(len(epoch) for epoch in epochs)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=args.learning_rate, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, total // 16, total)
    start, step, best, seen, running = time.monotonic(), 0, -1.0, 0, 0.0
    for epoch in epochs:
        for corpus, records in epoch:
            model.train()
            batch = example.batch(corpus, records, args.n_docs, args.scale)
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**batch, labels=example.labels(records)).loss.mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step, seen, running = step + 1, seen + len(records), running + loss.item()
            if step % 20 == 0:
                print(
                    f"step {step}/{total} examples {seen} loss {running / 20:.3f} {time.monotonic() - start:.0f} s",
                    flush=True,
                )
                running = 0.0
            if step % args.evaluate_every == 0:
                scores = evaluate(model, example, xquad, dev, 5, args.scale)
                print(
                    f"step {step} dev exact match {scores['exact_match']:.3f} F1 {scores['f1']:.3f}",
                    flush=True,
                )
                model.generator.save_pretrained(args.output / f"step-{step}")
                if scores["exact_match"] + scores["f1"] > best:
                    best = scores["exact_match"] + scores["f1"]
                    model.generator.save_pretrained(args.output / "best")
    model.generator.save_pretrained(args.output / "last")


if __name__ == "__main__":
    main()
