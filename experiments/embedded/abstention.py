"""Fit the embedded model's confidence, and measure how well it tells when the documents do not say.

    python -m experiments.embedded.abstention fit --xquad DIR --work WORK [--output FILE]
    python -m experiments.embedded.abstention measure --xquad DIR --work WORK

Every question is asked twice: of a knowledge base with the passage that answers it, and of one without that passage,
where the rest of the document stays. `fit` asks about XQuAD's held-out training articles and the Factbook's
development countries, `measure` about ``dev.jsonl``. DIR contains passages.jsonl, train.jsonl and dev.jsonl.
Near misses and conversations about the same articles are in `data`. Answers are kept in WORK; an interrupted run
resumes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import rich.progress
from examples.world_factbook.documents import country_documents, country_name, load_countries
from experiments.embedded.factbook_questions import all_questions, split_of
from experiments.embedded.readings import DATA, HELD_OUT, Record, read_lines
from experiments.results.run import knowledge_base
from rich.console import Console
from transformers.utils import logging

from ragweave import KnowledgeBase, RagPipeline
from ragweave.evaluation.metrics import auroc, expected_calibration_error
from ragweave.matching import exact_match, f1
from ragweave.pipeline import embedded
from ragweave.provenance.confidence import FILE_NAME, CalibratedConfidence, fit_confidence, signals

PARTS = 5
"""Knowledge bases without a passage: each lacks every fifth passage of an article."""

PER_COUNTRY = 8
SIGNALS = ("likelihood", "null", "best_null", "doc_score")
"""What the confidence weighs. Fitted on XQuAD and measured on the Factbook, and the other way round, these have the
smallest calibration error of all subsets of `signals` whose likelihood is near the best."""

MOST_WITHHELD = 0.08
"""The share of right answers that the shipped threshold may withhold."""

console = Console()


class Asker:
    """Builds knowledge bases and asks questions of them, and keeps both.

    Args:
        work: The folder where they are kept.
    """

    def __init__(self, work: Path) -> None:
        self.work = work

    def knowledge_base(self, name: str, documents: Sequence[Record]) -> KnowledgeBase:
        """Build a knowledge base of documents (id, title, text), unless it is there."""
        lines = self.work / f"{name}.jsonl"
        self.work.mkdir(parents=True, exist_ok=True)
        lines.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
        return knowledge_base(lines, self.work / f"{name}-kb")

    def ask(self, name: str, base: KnowledgeBase, questions: Sequence[Record]) -> list[Record]:
        """Ask questions (question, answers; no answers where there are none), unless the answers are kept."""
        kept = self.work / f"{name}-answers.jsonl"
        if not kept.exists():
            pipeline = RagPipeline.from_pretrained("embedded", knowledge_base=base, min_confidence=0.0)
            with rich.progress.Progress(console=console) as bar:
                task = bar.add_task(name, total=len(questions))
                answers = pipeline(
                    [each["question"] for each in questions], progress=lambda n: bar.advance(task, n)
                )
            rows = [
                {
                    **question,
                    "answer": answer.answer,
                    "score": answer.score,
                    "signals": signals(answer),
                    "right": bool(question["answers"])
                    and bool(exact_match(answer.answer, question["answers"])),
                }
                for question, answer in zip(questions, answers, strict=True)
            ]
            kept.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return read_lines(kept)

    def with_and_without(
        self, name: str, documents: Sequence[Record], questions: Sequence[Record], part_of: dict[str, int]
    ) -> tuple[list[Record], list[Record]]:
        """Ask each question with the document that answers it, and without.

        Args:
            name: Names what is kept.
            documents: All documents.
            questions: question, answers, passage (a document's id).
            part_of: For each document that is left out once, which part it is left out with.
        """
        present = self.ask(name, self.knowledge_base(name, documents), questions)
        absent = []
        for part in sorted(set(part_of.values())):
            kept = [document for document in documents if part_of.get(document["id"]) != part]
            own = [
                {**question, "answers": []} for question in questions if part_of[question["passage"]] == part
            ]
            absent += self.ask(f"{name}-{part}", self.knowledge_base(f"{name}-{part}", kept), own)
        return present, absent


def xquad(asker: Asker, folder: Path, name: str) -> tuple[list[Record], list[Record]]:
    """XQuAD's questions of ``name.jsonl`` (of the held-out articles, where it is "train"), with and without."""
    documents = read_lines(folder / "passages.jsonl")
    titles = {document["id"]: document["title"] for document in documents}
    questions = [
        {key: each[key] for key in ("question", "answers", "passage")}
        for each in read_lines(folder / f"{name}.jsonl")
        if name != "train" or titles[each["passage"]] in HELD_OUT
    ]
    asked = {titles[each["passage"]] for each in questions}
    part_of: dict[str, int] = {}
    for title in sorted(asked):
        own = [document["id"] for document in documents if document["title"] == title]
        part_of |= {each: number % PARTS for number, each in enumerate(own)}
    return asker.with_and_without(f"xquad-{name}", documents, questions, part_of)


def factbook(asker: Asker) -> tuple[list[Record], list[Record]]:
    """Questions about the Factbook's development countries, with and without the country in the documents."""
    countries = load_countries()
    chosen = {code: each for code, each in countries.items() if split_of(country_name(code, each)) == "dev"}
    sections = {code: list(country_documents(code, each)) for code, each in chosen.items()}
    part_of = {own["id"]: number % 2 for number, group in enumerate(sections.values()) for own in group}
    documents = [own for group in sections.values() for own in group]
    questions = [
        {key: each[key] for key in ("question", "answers", "passage")}
        for each in all_questions(countries, PER_COUNTRY)["dev"]
        if each["passage"] in part_of
    ]
    return asker.with_and_without("factbook-dev", documents, questions, part_of)


def fit(asker: Asker, args: argparse.Namespace) -> None:
    """Fit the confidence and write it."""
    groups = [*xquad(asker, args.xquad, "train"), *factbook(asker)]
    rows = [row for group in groups for row in group]
    known = [{name: row["signals"][name] for name in SIGNALS} for row in rows]
    model = fit_confidence(known, [row["right"] for row in rows], most_withheld=args.most_withheld)
    model.save(args.output)
    console.print(f"{model}\nwritten to {args.output}")
    _report("fitted on: XQuAD's held-out articles", model, groups[0], groups[1])
    _report("fitted on: the Factbook's development countries", model, groups[2], groups[3])


def measure(asker: Asker, args: argparse.Namespace) -> None:
    """Measure everything on development data."""
    model = CalibratedConfidence.load(embedded.ADAPTER / FILE_NAME)
    present, absent = xquad(asker, args.xquad, "dev")
    n = len(present)
    console.print(
        f"every question answered: exact match {sum(row['right'] for row in present) / n:.3f}, "
        f"F1 {sum(f1(row['answer'], row['answers']) for row in present) / n:.3f} ({n} questions)"
    )
    _report("XQuAD dev, with and without the passage", model, present, absent)
    base = asker.knowledge_base("xquad-dev", read_lines(args.xquad / "passages.jsonl"))
    questions = [
        {"question": each["question"], "answers": each.get("answers", [])}
        for each in read_lines(DATA / "dev_near_misses.jsonl")
    ]
    rows = asker.ask("near-misses", base, questions)
    answerable = [row for row in rows if row["answers"]]
    _report("near misses", model, answerable, [row for row in rows if not row["answers"]])
    follow_ups(base, read_lines(DATA / "dev_conversations.jsonl"))
    speed(base, [row["question"] for row in present[: args.timed]])


def follow_ups(base: KnowledgeBase, conversations: Iterable[Record]) -> None:
    """Print how often a follow-up finds its passage first: as rewritten, as it was said, and as a person rewrites."""
    pipeline = RagPipeline.from_pretrained("embedded", knowledge_base=base)
    asked: dict[str, list[str]] = {"rewritten": [], "as said": [], "rewritten by hand": []}
    wanted: list[str] = []
    for record in rich.progress.track(list(conversations), "conversations", console=console):
        conversation = pipeline.chat()
        for number, turn in enumerate(record["turns"]):
            question = conversation.standalone(turn["question"])
            if number and turn["passage"] is not None:
                wanted.append(turn["passage"])
                for name, text in zip(asked, (question, turn["question"], turn["standalone"]), strict=True):
                    asked[name].append(text)
            conversation.remember(pipeline(question))
    for name, questions in asked.items():
        rows = pipeline.retrieve(questions, n_docs=1).rows
        first = [pipeline.knowledge_base.passages(row)[0].document_id for row in rows]
        share = sum(found == gold for found, gold in zip(first, wanted, strict=True)) / len(wanted)
        console.print(f"follow-ups, {name}: right passage first for {share:.3f} of {len(wanted)}")


def speed(base: KnowledgeBase, questions: Sequence[str]) -> None:
    """Print what the null answer adds to the time of a question."""
    pipeline = RagPipeline.from_pretrained("embedded", knowledge_base=base, passage_cache=0, min_confidence=0)
    config, null_answer = pipeline.model.config, pipeline.model.config.null_answer
    plain = CalibratedConfidence({"likelihood": 1.0})
    calibrated = pipeline.confidence
    times: dict[bool, list[float]] = {True: [], False: []}
    for question in [questions[0], *questions]:
        for told in times:
            config.null_answer = null_answer if told else None
            pipeline.confidence = calibrated if told else plain
            start = time.perf_counter()
            pipeline(question)
            times[told].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(times[True][1:], times[False][1:], strict=True)]
    console.print(
        f"a question: {statistics.median(times[True][1:]):.2f} s with the null answer, "
        f"{statistics.median(times[False][1:]):.2f} s without; median ratio {statistics.median(ratios):.2f}"
    )


def _report(
    title: str, model: CalibratedConfidence, present: Sequence[Record], absent: Sequence[Record]
) -> None:
    rows = [*present, *absent]
    confidence = [model.probability(row["signals"]) for row in rows]
    right = [bool(row["right"]) for row in rows]
    answerable = [1] * len(present) + [0] * len(absent)
    refused = [value < model.threshold for value in confidence]
    right_refused = [no for no, good in zip(refused, right, strict=True) if good]
    lines: list[tuple[str, Any]] = [
        ("AUROC, answerable against unanswerable", auroc(confidence, answerable)),
        ("  of log p(y|x) alone", auroc([row["score"] for row in rows], answerable)),
        ("AUROC, right against wrong", auroc(confidence, right)),
        ("  of log p(y|x) alone", auroc([row["score"] for row in rows], right)),
        ("unanswerable refused", sum(refused[len(present) :]) / max(len(absent), 1)),
        ("right answers refused", sum(right_refused) / max(len(right_refused), 1)),
        ("ECE", expected_calibration_error(confidence, right)),
    ]
    console.print(f"\n{title}: {len(present)} answerable, {len(absent)} unanswerable")
    for name, value in lines:
        console.print(f"  {name}: {value:.3f}")


def main() -> None:
    """Fit or measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("fit", "measure"))
    parser.add_argument("--xquad", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=embedded.ADAPTER / FILE_NAME)
    parser.add_argument("--most-withheld", type=float, default=MOST_WITHHELD)
    parser.add_argument("--timed", type=int, default=20, help="questions whose time is measured")
    args = parser.parse_args()
    logging.disable_progress_bar()
    (fit if args.what == "fit" else measure)(Asker(args.work), args)


if __name__ == "__main__":
    main()
