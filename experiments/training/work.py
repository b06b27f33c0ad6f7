"""What the runs share: data, knowledge bases of short passages, and the initial generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from examples.world_factbook.documents import load_countries, write_documents
from experiments.embedded.factbook_questions import all_questions
from torch import nn

from ragweave import KnowledgeBase, RagPipeline, RagTrainer, RagTrainingArguments, SearchSettings
from ragweave.encoders.text_encoder import TextEncoder
from ragweave.evaluation.data import Example, read_examples
from ragweave.knowledge.ingest_settings import Chunking
from ragweave.pipeline import embedded
from ragweave.training.lora import add_adapter, merge_adapter

PASSAGE_WORDS = 30
"""Passages are about a sentence long: a step is three times as fast as with the usual 100 words, and the passage that
answers is harder to find, so that there is something to learn for a retriever."""

LAYERS = 12
"""How many of the generator's 30 layers, counted from the last, learn: a step takes half as long as with all."""

START_QUESTIONS = 1200
"""How many questions about the Factbook the generator has learned to answer before the runs begin."""


@dataclass(frozen=True, slots=True)
class Work:
    """The folder of the experiment.

    Attributes:
        root: Where everything is written.
        xquad: Folder with ``train.jsonl``, ``dev.jsonl`` and ``passages.jsonl`` of XQuAD's English part.
    """

    root: Path
    xquad: Path

    @property
    def start(self) -> Path:
        """The model that all runs begin with."""
        return self.root / "start"

    def knowledge_base(self) -> KnowledgeBase:
        """All passages of XQuAD."""
        return _built(self.xquad / "passages.jsonl", self.root / "xquad-kb")

    def questions(self, split: str) -> list[Example]:
        """The questions of a split, ``"train"`` or ``"dev"``."""
        return read_examples(self.xquad / f"{split}.jsonl")

    def factbook(self) -> tuple[KnowledgeBase, list[Example]]:
        """The Factbook, and questions about the countries of its training split."""
        documents = self.root / "factbook.jsonl"
        if not documents.exists():
            write_documents(documents)
        questions = all_questions(load_countries(), per_country=10)["train"][:START_QUESTIONS]
        examples = [
            Example(own["id"], own["question"], tuple(own["answers"]), (own["passage"],)) for own in questions
        ]
        return _built(documents, self.root / "factbook-kb"), examples


def train_start(work: Work) -> None:
    """Teach the embedded generator, without its adapter, to answer from passages, on another corpus; unless done.

    Without this, half of every run would go into learning what an answer looks like.
    """
    if work.start.exists():
        return
    base, examples = work.factbook()
    pipeline = RagPipeline.from_pretrained(
        "embedded", knowledge_base=base, search=SearchSettings("dense"), dtype="bfloat16", adapter=False
    )
    train(
        pipeline, examples, work.root / "start-run", n_docs=2, learning_rate=5e-4, freeze="question-encoder"
    ).save_model(str(work.start))


def train(
    pipeline: RagPipeline,
    examples: Sequence[Example],
    output: Path,
    *,
    layers: int | None = None,
    **own: object,
) -> RagTrainer:
    """Train a pipeline, its generator through an adapter that is merged afterwards.

    Args:
        pipeline: What is trained; its generator is in bfloat16, the adapter in float32.
        examples: The questions.
        output: Folder of the run.
        layers: How many of the generator's last layers learn; all where left out.
        **own: Arguments of `RagTrainingArguments`.
    """
    generator = pipeline.model.generator
    add_adapter(generator)
    first = 0 if layers is None else generator.config.num_hidden_layers - layers
    for name, weight in generator.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.float()
            weight.requires_grad_(_layer(name) >= first)
    trainer = RagTrainer(
        pipeline,
        RagTrainingArguments(
            output_dir=str(output),
            **{  # type: ignore[arg-type]
                "per_device_train_batch_size": 8,
                "num_train_epochs": 1,
                "warmup_steps": 0.1,
                "weight_decay": 0.01,
                "bf16": True,
                "use_cpu": True,
                "save_strategy": "no",
                "report_to": [],
                "logging_steps": 10,
                **own,
            },
        ),
        examples,
    )
    trainer.train()
    merge_adapter(generator)
    _in_one_type(generator)
    return trainer


def _built(documents: Path, folder: Path) -> KnowledgeBase:
    if folder.exists():
        return KnowledgeBase.open(folder)
    encoder = TextEncoder.from_pretrained(embedded.EMBEDDED)
    return KnowledgeBase.build([documents], folder, encoder=encoder, chunking=Chunking(words=PASSAGE_WORDS))


def _layer(name: str) -> int:
    """The number of the layer that a weight belongs to."""
    return int(name.partition(".layers.")[2].partition(".")[0])


def _in_one_type(generator: nn.Module) -> None:
    generator.to(torch.bfloat16)
