"""What is measured in training: answers, passages, and whether the retriever has collapsed."""

from __future__ import annotations

import warnings

import pytest

from ragweave.provenance.answers import Answer, RetrievedPassage
from ragweave.training.training_metrics import QuestionMetrics, mean_metrics, question_metrics
from ragweave.types import Example


def got(*passages: object) -> QuestionMetrics:
    """A question that got these passages."""
    return QuestionMetrics(1.0, 1.0, None, 0.5, tuple(map(str, passages)))


def answered(answer: str, *passages: str) -> Answer:
    found = [RetrievedPassage(name, "", "", "", 1.0, 0.5, 0.75 - 0.5 * n) for n, name in enumerate(passages)]
    return Answer("Where is Lima?", answer, -1.0, tuple(found))


@pytest.mark.parametrize(
    ("gold", "recall"), [(("peru#1",), 1.0), (("peru",), 1.0), (("chile",), 0.0), ((), None)]
)
def test_an_answer_is_question_metrics(gold: tuple[str, ...], recall: float | None) -> None:
    example = Example("1", "Where is Lima?", ("in Peru",), gold)
    own = question_metrics(example, answered("Peru", "kenya#0", "peru#1"))
    assert own.recall == recall
    assert (own.exact_match, own.f1) == (0.0, pytest.approx(2 / 3))
    assert own.top_mass == 0.75
    assert set(own.passages) == {"kenya#0", "peru#1"}


def test_figures_are_means_over_questions() -> None:
    rows = [
        QuestionMetrics(1.0, 1.0, 1.0, 0.5, ("a", "b")),
        QuestionMetrics(0.0, 0.5, None, 0.7, ("b", "c")),
        QuestionMetrics(0.0, 0.0, 0.0, 0.6, ("a", "b")),
    ]
    figures = mean_metrics(rows, 100)
    expected = {"exact_match": 1 / 3, "f1": 0.5, "recall": 0.5, "top_mass": 0.6, "distinct": 0.5}
    assert figures == pytest.approx(expected)
    assert mean_metrics(rows, 4)["distinct"] == pytest.approx(0.75)
    assert "recall" not in mean_metrics([got("a")], 4)


@pytest.mark.parametrize("n_passages", [20, 30, 100, 101, 10_000])
@pytest.mark.parametrize("n_questions", [20, 21, 500])
@pytest.mark.parametrize("others", [0, 2])
def test_questions_that_all_get_the_same_passages_are_told_of(
    n_passages: int, n_questions: int, others: int
) -> None:
    rows = [got(*range(5)) for _ in range(n_questions)]
    rows[0] = got(*range(others, 5 + others))  # one of them gets a few others
    with pytest.warns(UserWarning, match=f"{n_questions} questions got {5 + others} different passages"):
        figures = mean_metrics(rows, n_passages)
    assert figures["distinct"] == pytest.approx((5 + others) / min(5 * n_questions, n_passages))


def test_one_passage_for_all_questions_is_told_of() -> None:
    with pytest.warns(UserWarning, match="has collapsed"):
        mean_metrics([got("a")] * 20, 4)


def test_few_passages_of_very_many_are_told_of() -> None:
    rows = [got(*range(n % 15, n % 15 + 5)) for n in range(1000)]
    with pytest.warns(UserWarning, match="1000 questions got 19 different passages, of 5000"):
        mean_metrics(rows, 10_000)


@pytest.mark.parametrize(
    ("rows", "n_passages"),
    [
        ([got(*range(5))] * 100, 5),  # there are no others
        ([got(*range(n % 3, n % 3 + 5)) for n in range(100)], 7),  # most of the few that there are
        ([got(*range(5))] * 100, 19),
        ([got(*range(n % 4, n % 4 + 5)) for n in range(100)], 20),
        ([got(*range(n, n + 5)) for n in range(100)], 10_000),
        ([got(*range(5))] * 19, 10_000),  # too few questions to tell
        ([got()] * 20, 0),
        ([], 10),
    ],
)
def test_a_retriever_that_has_not_collapsed_is_not_warned_of(
    rows: list[QuestionMetrics], n_passages: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean_metrics(rows, n_passages)
