"""What the runs share: data, a knowledge base of short passages, and the initial generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from examples.world_factbook.documents import country_documents, country_name, load_countries
from experiments.embedded.factbook_questions import LEFT_OUT, all_questions, split_of
from torch import nn

from ragweave import KnowledgeBase, RagPipeline, RagTrainer, RagTrainingArguments, SearchSettings
from ragweave.cli.console import job_bars
from ragweave.encoders.text_encoder import TextEncoder
from ragweave.evaluation.data import Example, read_examples
from ragweave.evaluation.run_folder import RunFolder, RunSettings
from ragweave.evaluation.runner import run_evaluation
from ragweave.knowledge.ingest_settings import Chunking
from ragweave.pipeline import embedded
from ragweave.training.lora import add_adapter, merge_adapter

PASSAGE_WORDS = 30
"""Passages are about a sentence long: a step is three times as fast as with the usual 100 words, and the passage that
answers is harder to find, so that there is something to learn for a retriever."""

LAYERS = 12
"""How many of the generator's 30 layers, counted from the last, learn: a step takes half as long as with all."""

START_COUNTRIES = 30
"""How many countries the generator's first questions are about; none of them occurs later."""

START_QUESTIONS = 640
"""How many questions the generator has learned to answer before the runs begin."""

QUESTIONS = 256
"""How many of the training questions a run learns from, others with every seed."""

N_DOCS = 3
"""K in the evaluation, and in the training of the configurations."""

NOISE = 0.3
"""How far the question encoder starts from the embedded one: noise on its weight matrices, in standard deviations of
their weights. The embedded encoder finds answers to these questions as well as BM25 and has little left to learn."""

PER_COUNTRY = {"dev": 20, "test": 16}
"""How many questions about each country the runs train on (the Factbook's dev split) and are evaluated on."""


@dataclass(frozen=True, slots=True)
class Work:
    """The folder of the experiment, and its data: XQuAD and the World Factbook, in one knowledge base.

    Attributes:
        root: Where everything is written.
        xquad: Folder with ``train.jsonl``, ``dev.jsonl`` and ``passages.jsonl`` of XQuAD's English part.
        limit: The most questions of each data set in training and evaluation, to try the experiment; 0 for all.
    """

    root: Path
    xquad: Path
    limit: int = 0

    @property
    def start(self) -> Path:
        """The model that all runs begin with."""
        return self.root / "start"

    def knowledge_base(self) -> KnowledgeBase:
        """All passages of XQuAD, and of the countries that are asked about."""
        folder = self.root / "kb"
        if folder.exists():
            return KnowledgeBase.open(folder)
        documents = self.root / "factbook.jsonl"
        with documents.open("w", encoding="utf-8") as file:
            for code, country in _countries().items():
                for document in country_documents(code, country):
                    file.write(json.dumps(document, ensure_ascii=False) + "\n")
        encoder = TextEncoder.from_pretrained(embedded.EMBEDDED)
        sources = [self.xquad / "passages.jsonl", documents]
        return KnowledgeBase.build(sources, folder, encoder=encoder, chunking=Chunking(words=PASSAGE_WORDS))

    def start_questions(self) -> list[Example]:
        """The questions of the first training."""
        return _factbook("train", 50)[: self.limit or START_QUESTIONS]

    def train_questions(self) -> list[Example]:
        """The questions that runs choose from."""
        return self._both("train", "dev")

    def test_questions(self) -> list[Example]:
        """The questions of the evaluation, about other articles and countries."""
        return self._both("dev", "test")

    def _both(self, xquad: str, factbook: str) -> list[Example]:
        stop = self.limit or None
        articles = read_examples(self.xquad / f"{xquad}.jsonl")
        return articles[:stop] + _factbook(factbook, PER_COUNTRY[factbook])[:stop]


def is_factbook(question_id: str) -> bool:
    """Whether a question is about the Factbook: its id is country/fact."""
    return "/" in question_id


def _countries() -> dict[str, dict[str, Any]]:
    """The countries of the Factbook's dev and test splits, and the first ones of the train split."""
    countries = {
        code: country
        for code, country in load_countries().items()
        if country_name(code, country) not in LEFT_OUT
    }
    splits = {code: split_of(country_name(code, country)) for code, country in countries.items()}
    first = [code for code, split in splits.items() if split == "train"][:START_COUNTRIES]
    return {code: own for code, own in countries.items() if splits[code] != "train" or code in first}


@cache
def _factbook(split: str, per_country: int) -> list[Example]:
    return [
        Example(one["id"], one["question"], tuple(one["answers"]), (one["passage"],))
        for one in all_questions(_countries(), per_country)[split]
    ]


def train_start(work: Work) -> None:
    """Save the model that all runs begin with, unless it is there.

    The embedded generator, without its adapter, learns to answer from passages: otherwise half of every run would go
    into learning what an answer looks like. The question encoder is weakened.
    """
    if work.start.exists():
        return
    pipeline = RagPipeline.from_pretrained(
        "embedded",
        knowledge_base=work.knowledge_base(),
        search=SearchSettings("hybrid"),
        dtype="bfloat16",
        adapter=False,
    )
    trainer = train(
        pipeline,
        work.start_questions(),
        work.root / "start-run",
        n_docs=2,
        learning_rate=5e-4,
        freeze="question-encoder",
    )
    add_noise(pipeline.model.question_encoder)
    partial = work.root / "start.partial"
    trainer.save_model(str(partial))
    partial.rename(work.start)


@torch.no_grad()
def add_noise(encoder: nn.Module) -> None:
    """Add Gaussian noise, always the same, to the weight matrices of an encoder's layers."""
    random = torch.Generator().manual_seed(0)
    for name, weight in encoder.named_parameters():
        if weight.dim() == 2 and ".layer." in name:
            weight += NOISE * weight.std() * torch.randn(weight.shape, generator=random)


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


def run_folder(work: Work, name: str, seed: int) -> RunFolder:
    """The folder of a run's evaluation."""
    return RunFolder(work.root / "runs" / f"{name}-{seed}")


def evaluate(work: Work, pipeline: RagPipeline, folder: RunFolder, *, closed_book: bool = False) -> None:
    """Answer the questions of the evaluation, which finishes the folder of a run."""
    questions = work.test_questions()
    with job_bars() as advance:
        run_evaluation(
            questions,
            folder,
            settings=RunSettings(
                mode="closed-book" if closed_book else "e2e",
                n_docs=1 if closed_book else N_DOCS,
                max_new_tokens=16,
                extractive=not closed_book,
                decoding="fast" if pipeline.formulation == "sequence" else None,
            ),
            description={"run": folder.root.name},
            retriever=None if closed_book else pipeline.text_retriever,
            pipeline=pipeline,
            progress=lambda done, means: advance(folder.root.name, len(questions), done, ""),
        )


def _layer(name: str) -> int:
    """The number of the layer that a weight belongs to."""
    return int(name.partition(".layers.")[2].partition(".")[0])


def _in_one_type(generator: nn.Module) -> None:
    generator.to(torch.bfloat16)
