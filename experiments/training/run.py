"""Measure whether training the retriever with the generator helps: the paper's comparisons at a small scale.

    python -m experiments.training.run --work .cache/training --xquad DIR [--seeds 0,1,2] [--page docs/results.md]

DIR contains ``train.jsonl``, ``dev.jsonl`` (question, answers, passage) and ``passages.jsonl`` (id, title, text) of
XQuAD's English part. The World Factbook comes from its package. Finished runs are not repeated, so several processes
can share the work: ``--only start`` first, then each with other ``--seeds``.
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
from experiments.training.work import (
    LAYERS,
    N_DOCS,
    QUESTIONS,
    Work,
    evaluate,
    run_folder,
    train,
    train_start,
)
from rich.console import Console
from transformers import set_seed

from ragweave import RagPipeline
from ragweave.cli.console import quiet_libraries

LEARNING_RATE = 1e-3
RETRIEVER_LEARNING_RATE = 3e-5


def train_and_evaluate(work: Work, configuration: Configuration, seed: int) -> None:
    """Train with a seed and evaluate, unless that has been done."""
    folder = run_folder(work, configuration.name, seed)
    if folder.metrics.exists():
        return
    training = work.root / "training" / folder.root.name
    for of_killed_run in (folder.root, training):
        shutil.rmtree(of_killed_run, ignore_errors=True)
    closed_book = configuration.closed_book
    pipeline = RagPipeline.from_pretrained(
        work.start,
        knowledge_base=None if closed_book else work.knowledge_base(),
        formulation=configuration.formulation,
        search=configuration.search,
        dtype="bfloat16",
    )
    questions = work.train_questions()
    rates = {"learning_rate": LEARNING_RATE}
    if "freeze" not in configuration.arguments:
        rates["retriever_learning_rate"] = RETRIEVER_LEARNING_RATE
    set_seed(seed)
    train(
        pipeline,
        random.Random(seed).sample(questions, min(QUESTIONS, len(questions))),  # noqa: S311
        training,
        layers=LAYERS,
        n_docs=1 if closed_book else N_DOCS,
        seed=seed,
        **rates,
        **configuration.arguments,
    )
    evaluate(work, pipeline, folder, closed_book=closed_book)
    shutil.rmtree(training)


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of knowledge bases and runs")
    parser.add_argument("--xquad", type=Path, required=True, help="folder with XQuAD's English part")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated seeds")
    parser.add_argument("--only", help="comma-separated names of runs, without their seeds")
    parser.add_argument("--limit", type=int, default=0, help="questions per data set, to try the experiment")
    parser.add_argument("--page", type=Path, help="page whose part about training is replaced")
    args = parser.parse_args()
    quiet_libraries()
    args.work.mkdir(parents=True, exist_ok=True)
    work = Work(args.work, args.xquad, args.limit)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    chosen = args.only.split(",") if args.only else []
    train_start(work)
    for seed in seeds:
        for configuration in CONFIGURATIONS:
            if not chosen or configuration.name in chosen:
                Console(stderr=True).print(f"{configuration.label}, seed {seed}")
                train_and_evaluate(work, configuration, seed)
    compare_losses(work, seeds, chosen)
    text = page(work, seeds)
    if args.page is None:
        sys.stdout.write(text)
    else:
        replace_part(args.page, NAME, text)


if __name__ == "__main__":
    main()
