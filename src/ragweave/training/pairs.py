"""Questions with a passage that answers them and passages that only look like it, to train a retriever on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ragweave.encoders.text_encoder import with_title
from ragweave.errors import DataError
from ragweave.matching import has_answer
from ragweave.types import Example

if TYPE_CHECKING:
    from ragweave.knowledge.base import KnowledgeBase

_CANDIDATES = 100
"""How many passages of the search by words are looked at, as in Karpukhin et al. 2020, section 3.2."""


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """A question and passages, as the encoder reads them: with their titles.

    Attributes:
        question: The question.
        positive: A passage that answers it.
        negatives: Passages that share its words and do not answer it; best first, perhaps fewer than were asked for.
    """

    question: str
    positive: str
    negatives: tuple[str, ...] = ()


def training_pairs(
    base: KnowledgeBase,
    examples: Sequence[Example],
    *,
    n_negatives: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[TrainingPair]:
    """Find a passage that answers each question, and hard negatives among what BM25 finds.

    The positive is, among the gold passages (or those of the gold document), the one that BM25 finds first and that
    has one of the answers in it, or the first one where none has. Where nobody knows gold passages it is the first
    that BM25 finds with an answer in it (Karpukhin et al. 2020, section 4.1). Negatives are the best of BM25 that are
    not gold, are no copies of the positive, and have no answer in them, where answers are known.

    Args:
        base: The knowledge base, with words to search by.
        examples: The questions.
        n_negatives: How many hard negatives a question gets.
        progress: Called with how many more questions are done.

    Returns:
        A pair for every question of which a passage was found that answers it.

    Raises:
        DataError: No question has one.
        KnowledgeBaseError: It was built to be searched by vectors alone.
    """
    gold_rows = base.rows_of({name for example in examples for name in example.gold_passages})
    scorer = base.text_scorer()
    pairs: list[TrainingPair] = []
    for example in examples:
        gold = [row for name in example.gold_passages for row in gold_rows[name]]
        pair = _pair(base, example, scorer(example.question).best(_CANDIDATES)[0].tolist(), gold, n_negatives)
        if pair is not None:
            pairs.append(pair)
        if progress is not None:
            progress(1)
    if not pairs:
        raise DataError(
            "No passage was found that answers any of the questions: name gold passages in the data, or build the "
            "knowledge base from the documents that the questions are about."
        )
    return pairs


def _pair(
    base: KnowledgeBase, example: Example, found: list[int], gold: list[int], n_negatives: int
) -> TrainingPair | None:
    ranked = [*(row for row in found if row in gold), *(row for row in gold if row not in found)]
    answering = (row for row in ranked or found if _answers(base, row, example))
    positive = next(answering, ranked[0] if ranked else None)
    if positive is None:
        return None
    text = base.passage(positive).text
    # A copy of the positive is no negative, whatever row it is in.
    others = (row for row in found if row not in gold and base.passage(row).text != text)
    negatives = islice((row for row in others if not _answers(base, row, example)), n_negatives)
    return TrainingPair(
        example.question.strip(), _read(base, positive), tuple(_read(base, row) for row in negatives)
    )


def _answers(base: KnowledgeBase, row: int, example: Example) -> bool:
    """Whether a passage has one of the answers in it; none does where only gold passages are known."""
    return bool(example.answers) and has_answer(base.passage(row).text, example.answers)


def _read(base: KnowledgeBase, row: int) -> str:
    passage = base.passage(row)
    return with_title(passage.title, passage.text)
