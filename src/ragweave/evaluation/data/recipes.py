"""Recipes: how the data of known tasks is read and measured. They need the data and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ragweave.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the data of a task is read and measured.

    Attributes:
        name: What it is called.
        about: What the task is, and where the paper that set it is.
        task: ``"answer"`` a question in few words, ``"generation"`` of free text, or ``"classification"``.
        metrics: The metrics of answers that are reported, the first of them first.
        hub: The data on the hub, as `read_examples` takes it; empty where it is not there.
        columns: What its columns are called, by what they hold; for data that has no ``question`` and ``answers``.
        labels: What the model is to write, by the class that stands in the data.
        left_out: Answers that are none; questions with no others are left out.
        patterns: Whether answers are regular expressions.
        repeats: Whether a question may come again with the same answers, once for every piece of evidence.
        tidy: What is done with questions and answers that have the columns of the recipe.
    """

    name: str
    about: str
    task: Literal["answer", "generation", "classification"]
    metrics: tuple[str, ...]
    hub: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    patterns: bool = False
    repeats: bool = False
    tidy: Callable[[str], str] | None = None


_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)


def _plain_clue(text: str) -> str:
    """A clue of Jeopardy without the links to its pictures and the quotation marks that archives put around it."""
    text = _TAG.sub("", text).strip()
    return text[1:-1].strip() if len(text) > 2 and text[0] == text[-1] == "'" else text


_ANSWERS = ("exact_match", "f1")
_CLAIM = {"id": "id", "question": "claim", "answer": "label"}
_UNDECIDED = "NOT ENOUGH INFO"
# One letter is one token in every vocabulary, wherever in a text it stands; 'refutes' is two in most.
_DECIDED = {"SUPPORTS": "S", "REFUTES": "R"}

_ALL = (
    Recipe(
        name="nq-open",
        about="Natural Questions with short answers, without passages (Kwiatkowski et al. 2019; Lee et al. 2019)",
        task="answer",
        metrics=_ANSWERS,
        hub="google-research-datasets/nq_open:validation",
        columns={"question": "question", "answers": "answer"},
    ),
    Recipe(
        name="triviaqa",
        about="TriviaQA, unfiltered, with all aliases of the answers (Joshi et al. 2017)",
        task="answer",
        metrics=_ANSWERS,
        hub="mandarjoshi/trivia_qa,unfiltered.nocontext:validation",
        # The answer itself goes first, for training takes the first.
        columns={
            "id": "question_id",
            "question": "question",
            "answers": "answer.value+answer.aliases",
        },
        left_out=frozenset({"<unk>"}),  # the test set's, whose answers are secret
    ),
    Recipe(
        name="web-questions",
        about="WebQuestions (Berant et al. 2013)",
        task="answer",
        metrics=_ANSWERS,
        hub="stanfordnlp/web_questions:test",
        columns={"question": "question", "answers": "answers"},
    ),
    Recipe(
        name="curated-trec",
        about="CuratedTREC, whose answers are regular expressions (Baudis and Sedivy 2015)",
        task="answer",
        metrics=("regex_match",),
        columns={"question": "question", "answers": "answer"},
        patterns=True,
    ),
    Recipe(
        name="ms-marco",
        about="MS-MARCO's answers in sentences, without those that have none (Bajaj et al. 2016)",
        task="generation",
        metrics=("rouge_l_ms_marco", "bleu_1", "distinct_3"),
        hub="microsoft/ms_marco,v2.1:validation",
        columns={"id": "query_id", "question": "query", "answers": "answers"},
        left_out=frozenset({"No Answer Present.", ""}),
    ),
    Recipe(
        name="jeopardy",
        about="Jeopardy: the clue from the entity that it asks for (Lewis et al. 2020, section 3.3)",
        task="generation",
        metrics=("q_bleu_1", "bleu_1", "rouge_l", "distinct_3"),
        columns={"question": "answer", "answer": "question"},
        tidy=_plain_clue,
    ),
    Recipe(
        name="fever-3",
        about="FEVER: a claim is supported, refuted, or neither (Thorne et al. 2018)",
        task="classification",
        metrics=("accuracy",),
        columns=_CLAIM,
        labels={**_DECIDED, _UNDECIDED: "N"},
        repeats=True,
    ),
    Recipe(
        name="fever-2",
        about="FEVER's claims that are decided: supported or refuted (Thorne and Vlachos 2020)",
        task="classification",
        metrics=("accuracy",),
        hub="facebook/kilt_tasks,fever:validation",
        columns=_CLAIM,
        labels=_DECIDED,
        left_out=frozenset({_UNDECIDED}),
        repeats=True,
    ),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
"""Recipes by their names."""


def find_recipe(name: str | None) -> Recipe | None:
    """The recipe of a name; ``None`` for none.

    Raises:
        DataError: There is no such recipe.
    """
    if name is None:
        return None
    if name not in RECIPES:
        raise DataError(f"There is no recipe {name!r}; choose among {', '.join(RECIPES)}.")
    return RECIPES[name]
