"""The training data of the embedded generator: passages with questions, from four sources.

`data/README.md` describes their origin and licences.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from examples.world_factbook.documents import country_documents, load_countries
from experiments.embedded.factbook_questions import all_questions
from experiments.embedded.packing import Pair, Reading

from ragweave.encoders.text_encoder import TextEncoder, with_title
from ragweave.knowledge.ingest.chunking import chunk
from ragweave.matching import has_answer
from ragweave.pipeline.answer_pipeline import concatenated
from ragweave.pipeline.conversation import FUNCTION_WORDS, history_text
from ragweave.pipeline.embedded import CONTEXT_FIELDS
from ragweave.provenance.answers import NO_ANSWER
from ragweave.types import Document

DATA = Path(__file__).parent / "data"

HELD_OUT = (
    "European Union law",
    "Steam engine",
    "University of Chicago",
    "Victoria (Australia)",
    "Warsaw",
    "Yuan dynasty",
)
"""Articles of XQuAD's training questions that settings are chosen on, and that nothing is learned from."""

_NEAREST = 6
"""How many of the passages nearest to a question may be near misses."""

Record = dict[str, Any]


def read_lines(path: Path) -> list[Record]:
    """Read a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def xquad(folder: Path, *, held_out: bool) -> list[Reading]:
    """Passages of XQuAD's training articles, with their own questions and with those of `data/xquad.jsonl`.

    Args:
        folder: Holds ``passages.jsonl`` and ``train.jsonl``.
        held_out: Whether to return the articles of `HELD_OUT`, with their own questions alone, or all others.
    """
    documents = {record["id"]: record for record in read_lines(folder / "passages.jsonl")}
    questions = read_lines(folder / "train.jsonl")
    if not held_out:
        questions += [_in_full(record) for record in read_lines(DATA / "xquad.jsonl")]
    chosen = [q for q in questions if (documents[q["passage"]]["title"] in HELD_OUT) == held_out]
    return _readings(documents, chosen)


def written() -> list[Reading]:
    """Passages that were written for this, with their questions."""
    return [
        Reading(own["title"], own["text"], tuple(Pair(q["question"], q["answer"]) for q in own["questions"]))
        for own in read_lines(DATA / "passages.jsonl")
    ]


def factbook_prose() -> list[Reading]:
    """What the Factbook tells of countries' histories, with the questions of `data/factbook.jsonl`."""
    return _readings(_factbook(), [_in_full(record) for record in read_lines(DATA / "factbook.jsonl")])


def factbook_facts(per_country: int) -> list[Reading]:
    """The Factbook's sections, with questions made by `factbook_questions`.

    Args:
        per_country: At most so many questions about each country of the training split.
    """
    return _readings(_factbook(), all_questions(_countries(), per_country)["train"])


def asked(folder: Path) -> list[Reading]:
    """Passages with questions that they answer and questions that they do not; those of conversations too.

    Args:
        folder: Holds XQuAD's ``passages.jsonl``.
    """
    texts = _known_texts(folder)
    return [
        Reading(*_title_and_text(record, texts), tuple(_pair(q, "question") for q in record["questions"]))
        for name in ("workplace", "general", "near_misses", "xquad_more", "factbook_more")
        for record in read_lines(DATA / f"{name}.jsonl")
    ] + [
        Reading(*_title_and_text(record, texts), tuple(_pair(turn, "standalone") for turn in record["turns"]))
        for record in _conversations()
    ]


def rewritten() -> list[Reading]:
    """Conversations so far, each with the question that comes next and the same made to stand alone."""
    readings = []
    for count, record in enumerate(_conversations()):
        # What was said before stands alone in ragweave's own conversations, and not in those of other clients.
        said = "standalone" if count % 2 else "question"
        turns = [(turn[said], answer_text(turn["answer"]) or NO_ANSWER) for turn in record["turns"]]
        readings += [
            Reading("", history_text(turns[:number]), (Pair(turn["question"], _bare(turn["standalone"])),))
            for number, turn in enumerate(record["turns"])
            if number
        ]
    return readings


def answer_text(answer: str | list[str] | None) -> str:
    """What the generator is to say: "" for no answer, and "A, B and C" for a list."""
    if isinstance(answer, list):
        return f"{', '.join(answer[:-1])} and {answer[-1]}"
    return answer or ""


def with_near_misses(
    readings: Sequence[Reading], most: int, encoder: TextEncoder, seed: int
) -> list[Reading]:
    """The same, and the passages once more with questions that retrieval finds them for and they do not answer.

    Args:
        readings: Passages with their questions.
        most: The most such questions of a passage.
        encoder: Encodes questions and passages.
        seed: Chooses the questions.
    """
    passages, numbers, vectors = _encoded_passages(readings, encoder)
    asked = [(pair, numbers[own.title, own.text]) for own in readings for pair in own.pairs if pair.answer]
    scores = encoder.encode([pair.question for pair, _ in asked]) @ vectors.T  # (questions, passages)
    misses: dict[int, list[Pair]] = defaultdict(list)
    for (pair, gold), row in zip(asked, scores, strict=True):
        for number in np.argsort(-row)[:_NEAREST].tolist():
            if number != gold and not has_answer(" ".join(passages[number]), [pair.answer]):
                misses[number].append(Pair(pair.question, ""))
    rng = random.Random(seed)  # noqa: S311
    chosen = {number: rng.sample(pairs, min(most, len(pairs))) for number, pairs in sorted(misses.items())}
    return [*readings, *(Reading(*passages[number], tuple(pairs)) for number, pairs in chosen.items())]


def together(readings: Sequence[Reading], k: int, encoder: TextEncoder) -> list[Reading]:
    """The questions of each passage over one prompt of K passages, as ``--formulation concat`` makes it, best first.

    Each prompt comes twice: with the passage that answers, and with the null answer to the same questions without it,
    unless another passage has an answer in it.

    Args:
        readings: Passages with their questions; those without an answer are left out.
        k: Passages of a prompt.
        encoder: Encodes questions and passages.
    """
    passages, numbers, vectors = _encoded_passages(readings, encoder)
    joined = []
    for reading in readings:
        pairs = tuple(pair for pair in reading.pairs if pair.answer)
        if not pairs:
            continue
        scores = encoder.encode([pair.question for pair in pairs]).mean(0) @ vectors.T  # (passages,)
        gold = numbers[reading.title, reading.text]
        nearest = [number for number in np.argsort(-scores).tolist() if number != gold]
        with_gold = sorted([gold, *nearest[: k - 1]], key=lambda number: -scores[number])
        without = " ".join(" ".join(passages[number]) for number in nearest[:k])
        unanswered = tuple(Pair(p.question, "") for p in pairs if not has_answer(without, [p.answer]))
        for chosen, asked_of_it in ((with_gold, pairs), (nearest[:k], unanswered)):
            if asked_of_it:
                titles, texts = zip(*(passages[number] for number in chosen), strict=True)
                (doc,) = concatenated([{"title": titles, "text": texts}], CONTEXT_FIELDS["title_sep"])
                joined.append(Reading(doc["title"][0], doc["text"][0], asked_of_it))
    return joined


def in_parts(readings: Iterable[Reading], most: int) -> list[Reading]:
    """The same with at most so many questions each, in parts of about the same size.

    Args:
        readings: Passages with their questions.
        most: The most questions.
    """
    parts = []
    for own in readings:
        n_parts = -(-len(own.pairs) // most)
        parts += [Reading(own.title, own.text, own.pairs[start::n_parts]) for start in range(n_parts)]
    return parts


def _encoded_passages(
    readings: Sequence[Reading], encoder: TextEncoder
) -> tuple[list[tuple[str, str]], dict[tuple[str, str], int], Any]:
    """The distinct passages as titles and texts, their numbers, and their vectors, (passages, D)."""
    passages = list(dict.fromkeys((reading.title, reading.text) for reading in readings))
    numbers = {passage: number for number, passage in enumerate(passages)}
    return passages, numbers, encoder.encode([with_title(*passage) for passage in passages])


def _conversations() -> list[Record]:
    names = ("general", "reference")
    return [record for name in names for record in read_lines(DATA / f"conversations_{name}.jsonl")]


def _known_texts(folder: Path) -> dict[str, Record]:
    """XQuAD's passages by their ids, and those of `written` by their numbers."""
    texts = {record["id"]: record for record in read_lines(folder / "passages.jsonl")}
    return texts | {f"written/{n}": record for n, record in enumerate(read_lines(DATA / "passages.jsonl"))}


def _title_and_text(record: Record, texts: dict[str, Record]) -> tuple[str, str]:
    known = texts[record["passage"]] if "passage" in record else record
    return known["title"], known["text"]


def _bare(question: str) -> str:
    """A question as it is copied: without its question mark, and its first word small unless it is a name."""
    first, blank, rest = question.strip().rstrip("?").rstrip().partition(" ")
    return f"{first.lower() if first.lower() in FUNCTION_WORDS else first}{blank}{rest}"


def _pair(record: Record, field: str) -> Pair:
    return Pair(record[field].strip(), answer_text(record["answer"]))


@cache
def _countries() -> dict[str, dict[str, Any]]:
    return load_countries()


@cache
def _factbook() -> dict[str, Record]:
    return {
        document["id"]: document
        for code, country in _countries().items()
        for document in country_documents(code, country)
    }


def _in_full(record: Record) -> Record:
    return {
        "question": record["question"],
        "answers": [record["answer"]],
        "passage": record["passage"],
    }


def _readings(documents: dict[str, Record], questions: Iterable[Record]) -> list[Reading]:
    """Passages as a knowledge base would have them, each with the questions that it answers."""
    by_document: dict[str, list[Record]] = defaultdict(list)
    for question in questions:
        by_document[question["passage"]].append(question)
    readings = []
    for name, own in by_document.items():
        document = documents[name]
        texts = [passage.text for passage in chunk(Document(name, document["title"], document["text"], name))]
        pairs: dict[int, list[Pair]] = defaultdict(list)
        for question in own:
            place = _place(question, texts)
            if place is not None:
                pairs[place].append(Pair(question["question"].strip(), question["answers"][0]))
        readings += [Reading(document["title"], texts[place], tuple(pairs[place])) for place in sorted(pairs)]
    return readings


def _place(question: Record, texts: Sequence[str]) -> int | None:
    """Which passage answers: of those with the answer in them, the one with most words of the question."""
    words = set(re.findall(r"\w+", question["question"].lower()))
    having = [place for place, text in enumerate(texts) if question["answers"][0] in text]
    if not having:
        return None
    return max(having, key=lambda place: len(words & set(re.findall(r"\w+", texts[place].lower()))))
