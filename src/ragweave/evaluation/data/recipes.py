"""Recipes: how the data of known tasks is read and measured. They need the data and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

from ragweave.errors import DataError


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the data of a task is read and measured.

    Attributes:
        about: What the task is, and where the paper that set it is.
        metrics: The metrics of answers that are reported, the first of them first.
        hub: The data on the hub, as `read_examples` takes it; empty where it is not there.
        columns: What its columns are called, by what they hold.
        labels: What an answer is written as, by what stands in the data.
        left_out: Answers that are none; questions with no others are left out.
        patterns: Whether answers are regular expressions.
    """

    about: str
    metrics: tuple[str, ...]
    hub: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    patterns: bool = False


_FEVER = {"SUPPORTS": "supports", "REFUTES": "refutes"}
_ANSWERS = ("exact_match", "f1")

RECIPES: dict[str, Recipe] = {
    "nq-open": Recipe(
        about="Natural Questions with short answers, without passages (Kwiatkowski et al. 2019; Lee et al. 2019)",
        metrics=_ANSWERS,
        hub="google-research-datasets/nq_open:validation",
        columns={"question": "question", "answers": "answer"},
    ),
    "triviaqa": Recipe(
        about="TriviaQA, unfiltered, with all aliases of the answers (Joshi et al. 2017)",
        metrics=_ANSWERS,
        hub="mandarjoshi/trivia_qa,unfiltered.nocontext:validation",
        columns={"id": "question_id", "question": "question", "answers": "answer.aliases"},
    ),
    "web-questions": Recipe(
        about="WebQuestions (Berant et al. 2013)",
        metrics=_ANSWERS,
        hub="stanfordnlp/web_questions:test",
        columns={"question": "question", "answers": "answers"},
    ),
    "curated-trec": Recipe(
        about="CuratedTREC, whose answers are regular expressions (Baudis and Sedivy 2015); DPR's file of it",
        metrics=("regex_match",),
        patterns=True,
    ),
    "ms-marco": Recipe(
        about="MS-MARCO's answers in sentences, without those that have none (Bajaj et al. 2016)",
        metrics=("rouge_l_ms_marco", "bleu_1", "distinct_3"),
        hub="microsoft/ms_marco,v2.1:validation",
        columns={"id": "query_id", "question": "query", "answers": "answers"},
        left_out=frozenset({"No Answer Present."}),
    ),
    "jeopardy": Recipe(
        about="Jeopardy question generation from the answer's entity (Lewis et al. 2020, section 3.3)",
        metrics=("q_bleu_1", "bleu_1", "rouge_l", "distinct_3"),
        columns={"question": "answer", "answer": "question"},
    ),
    "fever-3": Recipe(
        about="FEVER, a claim into one of three classes (Thorne et al. 2018)",
        metrics=("accuracy",),
        hub="fever/fever,v1.0:labelled_dev",
        columns={"id": "id", "question": "claim", "answer": "label"},
        labels={**_FEVER, "NOT ENOUGH INFO": "unknown"},
    ),
    "fever-2": Recipe(
        about="FEVER, a claim that is true or false (Thorne and Vlachos 2020)",
        metrics=("accuracy",),
        hub="fever/fever,v1.0:labelled_dev",
        columns={"id": "id", "question": "claim", "answer": "label"},
        labels=_FEVER,
        left_out=frozenset({"NOT ENOUGH INFO"}),
    ),
}
"""Recipes by their names. Labels of FEVER are single tokens of most vocabularies, as in the paper."""


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
