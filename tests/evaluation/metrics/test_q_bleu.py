"""Q-BLEU-1 by hand, and against what its authors' script prints for its own examples."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics import QBleuWeights, q_bleu_1, sentence_bleu_1

ENTITIES = QBleuWeights(named_entities=1, question_type=0, relevant_words=0, answerability=1)
TYPE = QBleuWeights(named_entities=0, question_type=1, relevant_words=0, answerability=1)
RELEVANT = QBleuWeights(named_entities=0, question_type=0, relevant_words=1, answerability=1)
FUNCTION = QBleuWeights(named_entities=0, question_type=0, relevant_words=0, answerability=1)
FLUENCY = QBleuWeights(answerability=0)

QUESTIONS = st.lists(
    st.sampled_from(["What", "which", "who", "is", "the", "Tesla", "Paris", "river", "old", "U.S."]),
    max_size=8,
).map(" ".join)


def test_the_examples_of_the_released_script() -> None:
    """BLEU-3 of the second is its BLEU-1 too, so that the script's second figure is one of Q-BLEU-1."""
    assert q_bleu_1("who is this article?", ["who is this article's author?"]) == pytest.approx(
        0.8254349163681729, abs=1e-8
    )
    # 0.7 · (0.6 + 0.2 + 0.1 / 2 + 0.1) + 0.3 · 4/5
    assert q_bleu_1("Is this a great question?", ["Is this a good question?"]) == pytest.approx(0.905)


@pytest.mark.parametrize(
    ("weights", "prediction", "gold", "expected"),
    [
        (ENTITIES, "Where was Tesla born?", "When was Tesla married", 1.0),
        (ENTITIES, "Where was he born?", "Where was Tesla born?", 0.0),
        (ENTITIES, "where was he born?", "when was she born?", 1.0),  # neither has any
        # One of two: precision 1 · exp(1 - 2), recall 1/2.
        (ENTITIES, "who is Marie?", "who is Marie Curie?", 2 * exp(-1) * 0.5 / (exp(-1) + 0.5)),
        (ENTITIES, "In Rome", "Rome", 2 * 0.5 * exp(-1) / (0.5 + exp(-1))),  # a capital is enough
        (TYPE, "Who was Tesla?", "who sang?", 1.0),
        (TYPE, "Who was Tesla?", "when was Tesla?", 0.0),
        (TYPE, "was it who?", "was it?", 1.0),  # "who?" is none: words stand between spaces
        (TYPE, "What river is it?", "what city is it?", 0.5),  # the word after what belongs to it
        (TYPE, "what", "which", 0.0),
        (RELEVANT, "what old river is it?", "what new river flows there", 0.5),  # "it?" is no function word
        (RELEVANT, "who wrote it?", "who wrote that", 2 * 0.5 * exp(-1) / (0.5 + exp(-1))),
        (FUNCTION, "is it in Rome", "is it by Rome", 2 / 3),
        (FUNCTION, "Is Rome old", "is Rome new", 1.0),
        (FLUENCY, "who is old?", "who is new!", 2 / 3),  # punctuation is left out
        (FLUENCY, "", "who", 0.0),
        (QBleuWeights(), "", "", 0.7),
    ],
)
def test_each_kind_of_word(weights: QBleuWeights, prediction: str, gold: str, expected: float) -> None:
    assert q_bleu_1(prediction, [gold], weights) == pytest.approx(expected)


def test_the_best_gold_counts() -> None:
    golds = ["who is Tesla?", "what is a river?"]
    assert (
        q_bleu_1("what is a river?", golds) == q_bleu_1("what is a river?", golds[::-1]) == pytest.approx(1)
    )


@given(QUESTIONS, QUESTIONS)
def test_bounds(prediction: str, gold: str) -> None:
    assert 0 <= q_bleu_1(prediction, [gold]) <= 1
    # Answerability takes precision and recall alike.
    answerability = QBleuWeights(answerability=1)
    assert q_bleu_1(prediction, [gold], answerability) == pytest.approx(
        q_bleu_1(gold, [prediction], answerability)
    )


@given(QUESTIONS.filter(bool))
def test_a_gold_question_has_full_marks(question: str) -> None:
    assert q_bleu_1(question, [question]) == pytest.approx(1)


@given(QUESTIONS.map(lambda text: text.replace(".", "")), QUESTIONS.map(lambda text: text.replace(".", "")))
def test_without_answerability_it_is_bleu_1(prediction: str, gold: str) -> None:
    assert q_bleu_1(prediction, [gold], FLUENCY) == pytest.approx(sentence_bleu_1(prediction, [gold]))


def test_bad_arguments() -> None:
    with pytest.raises(ConfigurationError, match="golds is empty"):
        q_bleu_1("who?", [])
    with pytest.raises(ConfigurationError, match="outside 0 to 1"):
        QBleuWeights(named_entities=-0.1)
    with pytest.raises(ConfigurationError, match="outside 0 to 1"):
        QBleuWeights(answerability=float("nan"))
    with pytest.raises(ConfigurationError, match=r"sum to 1\.3"):
        QBleuWeights(question_type=0.6)
    assert QBleuWeights(0.6, 0.3, 0.1).function_words == 0
