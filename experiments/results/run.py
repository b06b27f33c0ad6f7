"""Run the ablations of the embedded model and write their page.

    python -m experiments.results.run --work .cache/results [--xquad DIR] [--page docs/results.md]

The World Factbook comes from its package: all documents, and questions about countries that the adapter was not
trained on. DIR contains ``dev.jsonl`` (question, answers, passage) and ``passages.jsonl`` (id, title, text) of
XQuAD's English part. Interrupted runs resume.

Most configurations read the same passages with the same generator. Once the knowledge bases are built, `ragweave warm
KB --all --budget 4GiB --generator-dtype bfloat16` reads each passage once for all of them, and the runs find what it
stores by themselves. It gives the same answers up to the rounding of bfloat16. Runs without the adapter, with another
type, or with several passages in one prompt read theirs whole.

``--trained`` names a folder with two models, whose adapters went on learning for as many steps: ``single`` from
single passages, ``together`` from prompts of five. For each of them (``--bfloat16`` makes it faster),

    python -m experiments.embedded.train_adapter --xquad DIR --output OUT --start ADAPTER --steps 100 [--together 5]
    python -m experiments.embedded.export_adapter OUT/step-100 --model TRAINED/NAME --kb KB
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from examples.world_factbook.documents import load_countries, write_documents
from experiments.embedded.comparisons import comparisons
from experiments.embedded.factbook_questions import all_questions
from experiments.pages import replace_part
from experiments.results.configurations import CONFIGURATIONS, Configuration
from experiments.results.figure import draw
from experiments.results.page import TITLES, page
from experiments.results.provenance import ask_again
from experiments.results.vote import load
from rich.console import Console

from ragweave import KnowledgeBase
from ragweave.cli.console import job_bars, quiet_libraries
from ragweave.encoders.text_encoder import TextEncoder
from ragweave.evaluation.data import Example, read_examples
from ragweave.evaluation.evaluate import RunProgress, evaluate
from ragweave.evaluation.run_folder import RunFolder
from ragweave.evaluation.runner import run_evaluation
from ragweave.matching import has_answer
from ragweave.pipeline import embedded

PER_COUNTRY = 4
"""Questions about each country, so that none counts for much."""


def knowledge_base(documents: Path, folder: Path) -> KnowledgeBase:
    """Build a knowledge base of documents, unless it is there."""
    if folder.exists():
        return KnowledgeBase.open(folder)
    encoder = TextEncoder.from_pretrained(embedded.EMBEDDED)
    return KnowledgeBase.build([documents], folder, encoder=encoder)


def factbook(work: Path, limit: int) -> dict[str, tuple[list[Example], KnowledgeBase]]:
    """Questions about countries of the test split and comparisons, and a knowledge base of the whole Factbook."""
    documents = work / "factbook.jsonl"
    if not documents.exists():
        write_documents(documents)
    countries = load_countries()
    base = knowledge_base(documents, work / "factbook-kb")
    examples = [
        Example(one["id"], one["question"], tuple(one["answers"]), (one["passage"],))
        for one in all_questions(countries, PER_COUNTRY)["test"][:limit]
    ]
    compared = [
        Example(one["id"], one["question"], tuple(one["answers"]), tuple(one["passages"]))
        for one in comparisons(countries)
    ]
    return {"factbook": (examples, base), "comparisons": (compared, base)}


def with_gold_passages(examples: list[Example], base: KnowledgeBase) -> list[Example]:
    """The examples, with the passage of the gold document that has an answer as gold; the nearest, if several do."""
    rows = base.rows_of({name for example in examples for name in example.gold_passages})
    candidates = [
        [
            row
            for name in example.gold_passages
            for row in rows[name]
            if has_answer(base.passage(int(row)).text, example.answers)
        ]
        for example in examples
    ]
    retriever = base.retriever(encoder=base.encoder)
    hits = retriever.index.hits_for_rows(candidates, max(1, *map(len, candidates)))
    nearest = retriever.score([example.question for example in examples], hits).scores.argmax(1)  # (B,)
    return [
        replace(example, gold_passages=(base.passage(int(found[best])).id,)) if found else example
        for example, found, best in zip(examples, candidates, nearest, strict=True)
    ]


def run_one(
    configuration: Configuration,
    examples: list[Example],
    folder: Path,
    base: KnowledgeBase,
    progress: RunProgress | None = None,
) -> RunFolder:
    """Run a configuration, or what is missing of it; its folder in ``folder`` has its name."""
    model, settings, run = configuration.model, configuration.settings, RunFolder(folder / configuration.name)
    if settings.gold:
        examples = with_gold_passages(examples, base)
    if not configuration.vote:
        return evaluate(
            examples, run.root, knowledge_base=base, model=model, settings=settings, progress=progress
        )
    pipeline = load(configuration, base)
    run_evaluation(
        examples,
        run,
        settings=settings,
        description={"model": model.to_dict(), "vote": True, "knowledge_base": str(base.path)},
        retriever=pipeline.text_retriever,
        pipeline=pipeline,
        progress=None if progress is None else partial(progress, "Evaluating", len(examples)),
    )
    return run


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of knowledge bases and runs")
    parser.add_argument("--xquad", type=Path, help="folder with dev.jsonl and passages.jsonl")
    parser.add_argument("--limit", type=int, default=100, help="questions about single countries")
    parser.add_argument("--trained", type=Path, help="folder of the models that were trained further")
    parser.add_argument("--only", help="comma-separated names of configurations")
    parser.add_argument("--page", type=Path, help="page whose part about ablations is replaced")
    args = parser.parse_args()
    names = {configuration.name for configuration in CONFIGURATIONS}
    chosen = names if args.only is None else set(args.only.split(","))
    if unknown := chosen - names:
        parser.error(
            f"--only: there is no {', '.join(sorted(unknown))}; choose from {', '.join(sorted(names))}."
        )
    quiet_libraries()
    args.work.mkdir(parents=True, exist_ok=True)
    data = factbook(args.work, args.limit)
    if args.xquad is not None:
        examples = read_examples(args.xquad / "dev.jsonl")
        data["xquad"] = (examples, knowledge_base(args.xquad / "passages.jsonl", args.work / "xquad-kb"))
    for configuration in CONFIGURATIONS:
        if configuration.name not in chosen or (configuration.trained and args.trained is None):
            continue
        if configuration.trained:
            model = replace(configuration.model, model=str(args.trained / configuration.trained))
            configuration = replace(configuration, model=model)
        for name, (examples, base) in data.items():
            if name not in configuration.data:
                continue
            Console(stderr=True).print(f"{name}: {configuration.label}")
            with job_bars() as advance:
                run = run_one(
                    configuration,
                    examples,
                    args.work / name,
                    base,
                    lambda job, total, done, means: advance(job, total, done, ""),
                )
                if configuration.asked_again and name != "comparisons":  # which rest on two passages
                    ask_again(
                        configuration, base, run, lambda total, done: advance("Asking again", total, done, "")
                    )
    folders = {name: RunFolder(args.work / name) for name in data}
    text = page(folders)
    if args.page is None:
        sys.stdout.write(text)
        return
    if pictures := draw(folders, TITLES, args.page.parent / "images"):
        text += "".join(
            f"\n![Exact match of all configurations](images/{path.name}#only-{path.stem.partition('-')[2]})"
            for path in pictures
        )
    replace_part(args.page, "ablations", text)


if __name__ == "__main__":
    main()
