"""Measure whether training the retriever with the generator helps: the paper's comparisons at a small scale.

    python -m experiments.training.run --work .cache/training --xquad DIR [--seeds 0,1,2] [--page docs/results.md]

DIR contains ``train.jsonl``, ``dev.jsonl`` (question, answers, passage) and ``passages.jsonl`` (id, title, text) of
XQuAD's English part. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from pathlib import Path

from experiments.pages import replace_part
from experiments.training.configurations import CONFIGURATIONS, Configuration
from experiments.training.page import NAME, page
from experiments.training.retriever_losses import compare_losses
from experiments.training.work import LAYERS, Work, train, train_start
from rich.console import Console
from transformers import set_seed

from ragweave import RagPipeline
from ragweave.cli.console import job_bars, quiet_libraries
from ragweave.evaluation.run_folder import Mode, RunFolder, RunSettings
from ragweave.evaluation.runner import run_evaluation

QUESTIONS = 368
"""Half of the training questions, another half with every seed."""

N_DOCS = 3
LEARNING_RATE = 1e-3
RETRIEVER_LEARNING_RATE = 3e-5


def train_and_evaluate(work: Work, configuration: Configuration, seed: int) -> None:
    """Train with a seed and evaluate, unless that has been done."""
    folder = work.root / "runs" / f"{configuration.name}-{seed}"
    if RunFolder(folder / "evaluation").metrics.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    base = None if configuration.closed_book else work.knowledge_base()
    pipeline = RagPipeline.from_pretrained(
        work.start,
        knowledge_base=base,
        formulation=configuration.formulation,
        search=configuration.search,
        dtype="bfloat16",
    )
    k = 1 if configuration.closed_book else N_DOCS
    chosen = random.Random(seed).sample(work.questions("train"), QUESTIONS)  # noqa: S311
    set_seed(seed)
    train(
        pipeline,
        chosen,
        folder / "training",
        layers=LAYERS,
        n_docs=k,
        seed=seed,
        learning_rate=LEARNING_RATE,
        **(
            {}
            if "freeze" in configuration.arguments
            else {"retriever_learning_rate": RETRIEVER_LEARNING_RATE}
        ),
        **configuration.arguments,
    )
    mode: Mode = "closed-book" if configuration.closed_book else "e2e"
    questions = work.questions("dev")
    with job_bars() as advance:
        run_evaluation(
            questions,
            RunFolder(folder / "evaluation"),
            settings=RunSettings(
                mode=mode,
                n_docs=k,
                max_new_tokens=24,
                extractive=not configuration.closed_book,
                decoding="fast" if configuration.formulation == "sequence" else None,
            ),
            description={"configuration": configuration.name, "seed": seed},
            retriever=None if configuration.closed_book else pipeline.text_retriever,
            pipeline=pipeline,
            progress=lambda done, means: advance(configuration.label, len(questions), done, ""),
        )
    shutil.rmtree(folder / "training")


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of knowledge bases and runs")
    parser.add_argument("--xquad", type=Path, required=True, help="folder with XQuAD's English part")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated seeds")
    parser.add_argument("--only", help="comma-separated names of configurations")
    parser.add_argument("--page", type=Path, help="page whose part about training is replaced")
    args = parser.parse_args()
    quiet_libraries()
    args.work.mkdir(parents=True, exist_ok=True)
    work = Work(args.work, args.xquad)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    chosen = None if args.only is None else set(args.only.split(","))
    train_start(work)
    for seed in seeds:
        for configuration in CONFIGURATIONS:
            if chosen is None or configuration.name in chosen:
                Console(stderr=True).print(f"{configuration.label}, seed {seed}")
                train_and_evaluate(work, configuration, seed)
    if chosen is None or "retriever-losses" in chosen:
        compare_losses(work, seeds)
    text = page(work.root, seeds)
    if args.page is None:
        sys.stdout.write(text)
    else:
        replace_part(args.page, NAME, text)


if __name__ == "__main__":
    main()
