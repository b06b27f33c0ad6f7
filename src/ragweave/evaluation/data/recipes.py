"""Recipes: how the data of well-known tasks is read and scored. The data itself is not included."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ragweave.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the data of a task is read and scored."""

    name: str
    about: str  # the task and its paper
    # ``"answer"`` for short answers, ``"generation"`` for free text, or ``"classification"``.
    task: Literal["answer", "generation", "classification"] = "answer"
    metrics: tuple[str, ...] = ("exact_match", "f1")  # the answer metrics to report, the main one first
    hub: str = ""  # the data on the hub, in the form that `read_examples` accepts; empty if it is not there
    # The names of the columns by field; for data without ``question`` and ``answers``.
    columns: Mapping[str, str] = field(default_factory=dict)
    # The text that the model should generate, by class.
    labels: Mapping[str, str] = field(default_factory=dict)
    # Texts that are not answers; questions without other answers are left out.
    left_out: frozenset[str] = frozenset()
    patterns: bool = False  # whether the answers are regular expressions
    # Whether a question may occur again with the same answers, once per piece of evidence.
    repeats: bool = False
    clean: Callable[[str], str] | None = (
        None  # cleans questions and answers of data with the recipe's columns
    )


_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)


def _clean_clue(text: str) -> str:
    """Remove the links of a Jeopardy clue and the quotation marks that archives put around it."""
    text = _TAG.sub("", text).strip()
    return text[1:-1].strip() if len(text) > 2 and text[0] == text[-1] == "'" else text


_CLAIM = {"id": "id", "question": "claim", "answer": "label"}
_UNDECIDED = "NOT ENOUGH INFO"
# A letter is one token in every vocabulary, with or without a space before it; 'refutes' is two in most.
_DECIDED = {"SUPPORTS": "S", "REFUTES": "R"}

_ALL = (
    Recipe(
        name="nq-open",
        about="Natural Questions with short answers, without passages (Kwiatkowski et al. 2019; Lee et al. 2019)",
        hub="google-research-datasets/nq_open:validation",
        columns={"question": "question", "answers": "answer"},
    ),
    Recipe(
        name="triviaqa",
        about="TriviaQA, unfiltered, with all aliases of the answers (Joshi et al. 2017)",
        hub="mandarjoshi/trivia_qa,unfiltered.nocontext:validation",
        # The answer comes before its aliases because training learns the first.
        columns={"id": "question_id", "question": "question", "answers": "answer.value+answer.aliases"},
        left_out=frozenset({"<unk>"}),  # in the test set, whose answers are secret
    ),
    Recipe(
        name="web-questions",
        about="WebQuestions (Berant et al. 2013)",
        hub="stanfordnlp/web_questions:test",
        columns={"question": "question", "answers": "answers"},
    ),
    Recipe(
        name="curated-trec",
        about="CuratedTREC, whose answers are regular expressions (Baudis and Sedivy 2015)",
        metrics=("regex_match",),
        columns={"question": "question", "answers": "answer"},
        patterns=True,
    ),
    Recipe(
        name="ms-marco",
        about="MS-MARCO's answers in sentences, without questions that have none (Bajaj et al. 2016)",
        task="generation",
        metrics=("rouge_l_ms_marco", "bleu_1", "distinct_3"),
        hub="microsoft/ms_marco,v2.1:validation",
        columns={"id": "query_id", "question": "query", "answers": "answers"},
        left_out=frozenset({"No Answer Present.", ""}),
    ),
    Recipe(
        name="jeopardy",
        about="Jeopardy: generate the clue for an answer (Lewis et al. 2020, section 3.3)",
        task="generation",
        metrics=("q_bleu_1", "bleu_1", "rouge_l", "distinct_3"),
        columns={"question": "answer", "answer": "question"},
        clean=_clean_clue,
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
        about="FEVER's decidable claims: supported or refuted (Thorne and Vlachos 2020)",
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
"""All recipes by name."""


def find_recipe(name: str | None) -> Recipe | None:
    """The recipe of a name; ``None`` for ``None``. Raises `DataError` if the name is unknown."""
    if name is None:
        return None
    if name not in RECIPES:
        raise DataError(f"Unknown recipe {name!r}. Choose one of: {', '.join(RECIPES)}.")
    return RECIPES[name]
