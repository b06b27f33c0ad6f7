"""One question and what is right."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class GivenPassage:
    """A passage that the data itself gives with a question.

    Attributes:
        text: Its text.
        title: Its title; may be empty.
        id: Its id; empty where the data has none.
        gold: Whether the data says that it holds the answer; ``None`` where it says nothing.
    """

    text: str
    title: str = ""
    id: str = ""
    gold: bool | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One question and what is right.

    Attributes:
        id: Its id, unique among those it was read with.
        question: The question, or whatever else the model is given, such as a claim.
        answers: Answers that are right, each as good as another; empty where only passages are known.
        gold_passages: Ids of passages or documents of the knowledge base that hold the answer; empty where nobody
            knows them.
        where: Where it was read, for messages: a file and a line. Examples are equal wherever they were read.
        contexts: Passages that the data gives with the question; empty where they were not asked for.
        label: The class that a claim belongs to, as the data writes it; ``None`` where there are no classes.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    gold_passages: tuple[str, ...] = ()
    where: str = field(default="", compare=False)
    contexts: tuple[GivenPassage, ...] = ()
    label: str | None = None
