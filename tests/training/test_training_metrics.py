"""Metrics in training: answers, passages, and whether the retriever has collapsed."""

from __future__ import annotations

import warnings

import pytest

from ragweave.provenance.answers import Answer, RetrievedPassage
from ragweave.training.training_metrics import QuestionMetrics, mean_metrics, question_metrics
from ragweave.types import Example


def with_passages(*passages: object) -> QuestionMetrics:
    """A question with these retrieved passages."""
    return QuestionMetrics(1.0, 1.0, None, 0.5, tuple(map(str, passages)))


def answer_from(answer: str, *passages: str) -> Answer:
    retrieved = [
        RetrievedPassage(name, "", "", "", 1.0, 0.5, 0.75 - 0.5 * n) for n, name in enumerate(passages)
    ]
    return Answer("Where is Lima?", answer, -1.0, tuple(retrieved))


@pytest.mark.parametrize(
    ("gold", "recall"), [(("peru#1",), 1.0), (("peru",), 1.0), (("chile",), 0.0), ((), None)]
)
def test_metrics_of_a_question(gold: tuple[str, ...], recall: float | None) -> None:
    example = Example("1", "Where is Lima?", ("in Peru",), gold)
    metrics = question_metrics(example, answer_from("Peru", "kenya#0", "peru#1"))
    assert metrics.recall == recall
    assert (metrics.exact_match, metrics.f1) == (0.0, pytest.approx(2 / 3))
    assert metrics.top_mass == 0.75
    assert set(metrics.passages) == {"kenya#0", "peru#1"}


def test_metrics_are_means_over_questions() -> None:
    rows = [
        QuestionMetrics(1.0, 1.0, 1.0, 0.5, ("a", "b")),
        QuestionMetrics(0.0, 0.5, None, 0.7, ("b", "c")),
        QuestionMetrics(0.0, 0.0, 0.0, 0.6, ("a", "b")),
    ]
    metrics = mean_metrics(rows, 100)
    expected = {"exact_match": 1 / 3, "f1": 0.5, "recall": 0.5, "top_mass": 0.6, "distinct": 0.5}
    assert metrics == pytest.approx(expected)
    assert mean_metrics(rows, 4)["distinct"] == pytest.approx(0.75)
    assert "recall" not in mean_metrics([with_passages("a")], 4)


@pytest.mark.parametrize("n_passages", [20, 30, 100, 101, 10_000])
@pytest.mark.parametrize("n_questions", [20, 21, 500])
@pytest.mark.parametrize("others", [0, 2])
def test_the_same_passages_for_all_questions_are_a_collapse(
    n_passages: int, n_questions: int, others: int
) -> None:
    rows = [with_passages(*range(5)) for _ in range(n_questions)]
    rows[0] = with_passages(*range(others, 5 + others))  # one of them gets a few others
    with pytest.warns(UserWarning, match=f"{n_questions} questions got {5 + others} different passages"):
        metrics = mean_metrics(rows, n_passages)
    assert metrics["distinct"] == pytest.approx((5 + others) / min(5 * n_questions, n_passages))


def test_one_passage_for_all_questions_is_a_collapse() -> None:
    with pytest.warns(UserWarning, match="has collapsed"):
        mean_metrics([with_passages("a")] * 20, 4)


def test_few_distinct_passages_of_many_are_a_collapse() -> None:
    rows = [with_passages(*range(n % 15, n % 15 + 5)) for n in range(1000)]
    with pytest.warns(UserWarning, match="1000 questions got 19 different passages, of 5000"):
        mean_metrics(rows, 10_000)


@pytest.mark.parametrize(
    ("rows", "n_passages"),
    [
        ([with_passages(*range(5))] * 100, 5),  # all of the knowledge base
        ([with_passages(*range(n % 3, n % 3 + 5)) for n in range(100)], 7),  # most of a small knowledge base
        ([with_passages(*range(5))] * 100, 19),
        ([with_passages(*range(n % 4, n % 4 + 5)) for n in range(100)], 20),
        ([with_passages(*range(n, n + 5)) for n in range(100)], 10_000),
        ([with_passages(*range(5))] * 19, 10_000),  # too few questions to tell
        ([with_passages()] * 20, 0),
        ([], 10),
    ],
)
def test_no_warning_without_a_collapse(rows: list[QuestionMetrics], n_passages: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean_metrics(rows, n_passages)
