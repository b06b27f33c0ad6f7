"""One question and what is right."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One question and what is right.

    Attributes:
        id: Its id, unique among those it was read with.
        question: The question, or whatever else the model is given, such as a claim.
        answers: Answers that are right, each as good as another; empty where only passages are known.
        gold_passages: Ids of passages or documents of the knowledge base that hold the answer; empty where nobody
            knows them.
        where: Where it was read, for messages: a file and a line.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    gold_passages: tuple[str, ...] = ()
    where: str = ""
