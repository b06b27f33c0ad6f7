"""Labels, BLEU-1, ROUGE-L, Q-BLEU-1 and distinct n-grams against hand-computed values and direct implementations."""

from __future__ import annotations

from collections import Counter
from functools import cache
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics import (
    FEVER_2_WAY,
    FEVER_3_WAY,
    QBleuWeights,
    accuracy,
    bleu_1,
    distinct_ngrams,
    label_match,
    q_bleu_1,
    rouge_l,
    rouge_l_ms_marco,
    sentence_bleu_1,
)

PAIRS = st.lists(
    st.tuples(st.sampled_from(FEVER_3_WAY), st.sampled_from(FEVER_3_WAY)), min_size=1, max_size=20
)


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("SUPPORTS", "SUPPORTS", 1.0),
        (" supports\n", "SUPPORTS", 1.0),
        ("REFUTES", "SUPPORTS", 0.0),
        ("SUPPORTS it", "SUPPORTS", 0.0),
        ("", "SUPPORTS", 0.0),
        ("not enough info", "NOT ENOUGH INFO", 1.0),
    ],
)
def test_label_match(prediction: str, gold: str, expected: float) -> None:
    assert label_match(prediction, gold) == expected


def test_fever() -> None:
    golds = ["SUPPORTS", "REFUTES", "NOT ENOUGH INFO", "REFUTES"]
    predictions = ["supports", "SUPPORTS", "NOT ENOUGH INFO", "no idea"]
    assert accuracy(predictions, golds) == accuracy(predictions, golds, labels=FEVER_3_WAY) == 0.5
    assert accuracy(predictions[:2], golds[:2], labels=FEVER_2_WAY) == 0.5
    with pytest.raises(ConfigurationError, match="'NOT ENOUGH INFO' is none of SUPPORTS, REFUTES"):
        accuracy(predictions, golds, labels=FEVER_2_WAY)


@given(PAIRS)
def test_accuracy_as_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    predictions, golds = [one for one, _ in pairs], [other for _, other in pairs]
    score = accuracy(predictions, golds)
    assert score == pytest.approx(accuracy_score(golds, predictions))
    assert accuracy(predictions[::-1], golds[::-1]) == score


def test_labels_refuse_bad_arguments() -> None:
    with pytest.raises(ConfigurationError, match="1 and 2 items"):
        accuracy(["SUPPORTS"], ["SUPPORTS", "REFUTES"])
    with pytest.raises(ConfigurationError, match="are empty"):
        accuracy([], [])
    with pytest.raises(ConfigurationError, match="is none of"):
        accuracy(["SUPPORTS"], ["SUPPORTS"], labels=())


# Words that every tokenizer splits alike.
SENTENCES = st.lists(st.sampled_from(["one", "two", "three", "four", "five"]), max_size=8).map(" ".join)
GOLDS = st.lists(SENTENCES.filter(bool), min_size=1, max_size=3)


def slow_bleu_1(predictions: list[str], golds: list[list[str]]) -> float:
    """Papineni et al. 2002, equations 1 to 3 with N 1."""
    matches = length = reference = 0
    for prediction, texts in zip(predictions, golds, strict=True):
        counts, most = Counter(prediction.split()), Counter()
        for gold in texts:
            most |= Counter(gold.split())
        matches += (counts & most).total()
        length += counts.total()
        reference += min((abs(len(g.split()) - counts.total()), len(g.split())) for g in texts)[1]
    if matches == 0:
        return 0.0
    return matches / length * (exp(1 - reference / length) if length < reference else 1)


def slow_lcs(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    @cache
    def length(i: int, j: int) -> int:
        if i == len(one) or j == len(other):
            return 0
        if one[i] == other[j]:
            return 1 + length(i + 1, j + 1)
        return max(length(i + 1, j), length(i, j + 1))

    return length(0, 0)


def precision_and_recall(prediction: str, gold: str) -> tuple[float, float]:
    one, other = tuple(prediction.split()), tuple(gold.split())
    common = slow_lcs(one, other)
    return (common / len(one), common / len(other)) if one and other else (0.0, 0.0)


def f(precision: float, recall: float, beta: float) -> float:
    if not precision or not recall:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


@pytest.mark.parametrize(
    ("predictions", "golds", "expected"),
    [
        (["the cat"], [["the cat"]], 1.0),
        (["The Cat!"], [["the cat !"]], 1.0),  # case does not count, marks are words
        # The example of the paper's section 2.1.1: "the" counts as often as in one reference.
        (
            ["the the the the the the the"],
            [["The cat is on the mat", "There is a cat on the mat"]],
            2 / 7,
        ),
        (["the cat"], [["the cat sat down"]], exp(1 - 4 / 2)),  # too short
        (["the cat"], [["the cat sat down", "cat"]], 1.0),  # 1 is closer to 2 than 4 is
        # Over all: 2 + 1 of 2 + 2 words, lengths 4 against 3 + 2.
        (["a b", "c d"], [["a b x"], ["c y"]], 3 / 4 * exp(1 - 5 / 4)),
        (["", "c d"], [["a"], ["c d"]], exp(1 - 3 / 2)),  # an empty prediction is short
        ([""], [["a"]], 0.0),
        (["x"], [["y"]], 0.0),
    ],
)
def test_bleu_1(predictions: list[str], golds: list[list[str]], expected: float) -> None:
    assert bleu_1(predictions, golds) == pytest.approx(expected)
    if len(predictions) == 1:
        assert sentence_bleu_1(predictions[0], golds[0]) == pytest.approx(expected)


@given(st.lists(st.tuples(SENTENCES, GOLDS), min_size=1, max_size=5))
def test_bleu_1_by_direct_evaluation(pairs: list[tuple[str, list[str]]]) -> None:
    predictions, golds = [one for one, _ in pairs], [texts for _, texts in pairs]
    score = bleu_1(predictions, golds)
    assert score == pytest.approx(slow_bleu_1(predictions, golds))
    assert 0 <= score <= 1
    assert bleu_1(predictions[::-1], [texts[::-1] for texts in golds[::-1]]) == pytest.approx(score)


@given(SENTENCES.filter(bool), GOLDS)
def test_a_gold_text_has_full_marks(text: str, golds: list[str]) -> None:
    assert sentence_bleu_1(text, [*golds, text]) == pytest.approx(1)
    assert rouge_l(text, [*golds, text]) == 1
    assert rouge_l_ms_marco(text, [*golds, text]) == 1


@pytest.mark.parametrize(
    ("prediction", "golds", "expected"),
    [
        # The example of Lin 2004, section 3.1: three words of four in order, then two.
        ("police kill the gunman", ["police killed the gunman"], 3 / 4),
        ("the gunman kill police", ["police killed the gunman"], 2 / 4),
        ("police kill the gunman", ["nobody", "Police, kill the gunman!"], 1.0),
        ("a b", ["a b c d"], f(1, 1 / 2, 1)),
        ("naïve", ["na ve"], 1.0),  # ROUGE knows ASCII alone
        ("", ["a"], 0.0),
        ("a", [""], 0.0),
        ("東京", ["東京"], 0.0),
    ],
)
def test_rouge_l(prediction: str, golds: list[str], expected: float) -> None:
    assert rouge_l(prediction, golds) == pytest.approx(expected)


@given(SENTENCES, GOLDS)
def test_rouge_l_by_direct_evaluation(prediction: str, golds: list[str]) -> None:
    each = [precision_and_recall(prediction, gold) for gold in golds]
    score = rouge_l(prediction, golds)
    assert score == pytest.approx(max(f(p, r, 1) for p, r in each))
    scorer = RougeScorer(["rougeL"])
    assert score == max(scorer.score(gold, prediction)["rougeL"].fmeasure for gold in golds)
    assert score == rouge_l(prediction, golds[::-1])
    marco = rouge_l_ms_marco(prediction, golds)
    assert marco == pytest.approx(f(max(p for p, _ in each), max(r for _, r in each), 1.2))
    assert 0 <= marco <= 1


@pytest.mark.parametrize(
    ("prediction", "golds", "expected"),
    [
        ("a b", ["a b c d"], f(1, 1 / 2, 1.2)),  # 2.44 · 0.5 / 1.94
        ("a b c d", ["a b"], f(1 / 2, 1, 1.2)),
        # The precision is that with the first gold, the recall that with the second.
        ("a b", ["a b c d", "a"], 1.0),
        ("Tōkyō 東京", ["tōkyō 東京"], 1.0),
        ("", ["a"], 0.0),
        ("x", ["y", ""], 0.0),
    ],
)
def test_rouge_l_of_ms_marco(prediction: str, golds: list[str], expected: float) -> None:
    assert rouge_l_ms_marco(prediction, golds) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        (["a b c"], 1, 1.0),
        (["a a a a"], 1, 1 / 4),
        (["a b a b a"], 2, 2 / 4),
        (["a b", "a b"], 2, 1 / 2),
        (["a b", "b c"], 2, 1.0),  # no run goes over two texts
        (["A b.", "a B ."], 3, 1 / 2),
        (["a b", ""], 3, 0.0),
        ([""], 1, 0.0),
    ],
)
def test_distinct_ngrams(texts: list[str], n: int, expected: float) -> None:
    assert distinct_ngrams(texts, n) == expected


@given(st.lists(SENTENCES, min_size=1, max_size=5), st.integers(1, 4))
def test_repeating_texts_halves_their_diversity(texts: list[str], n: int) -> None:
    score = distinct_ngrams(texts, n)
    assert 0 <= score <= 1
    assert distinct_ngrams(texts[::-1], n) == score
    assert distinct_ngrams(texts * 2, n) == score / 2


def test_text_metrics_refuse_bad_arguments() -> None:
    with pytest.raises(ConfigurationError, match="2 and 1 items"):
        bleu_1(["a", "b"], [["a"]])
    with pytest.raises(ConfigurationError, match="are empty"):
        bleu_1([], [])
    with pytest.raises(ConfigurationError, match="golds is empty"):
        bleu_1(["a", "b"], [["a"], []])
    with pytest.raises(ConfigurationError, match="golds is a string"):
        bleu_1(["a"], ["a"])
    for metric in (sentence_bleu_1, rouge_l, rouge_l_ms_marco):
        with pytest.raises(ConfigurationError, match="golds is empty"):
            metric("a", [])
    with pytest.raises(ConfigurationError, match="texts is empty"):
        distinct_ngrams([], 1)
    with pytest.raises(ConfigurationError, match="n=0"):
        distinct_ngrams(["a"], 0)


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
        # "it?" is not a function word
        (RELEVANT, "what old river is it?", "what new river flows there", 0.5),
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
def test_q_bleu_bounds(prediction: str, gold: str) -> None:
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


def test_q_bleu_refuses_bad_arguments() -> None:
    with pytest.raises(ConfigurationError, match="golds is empty"):
        q_bleu_1("who?", [])
    with pytest.raises(ConfigurationError, match="outside 0 to 1"):
        QBleuWeights(named_entities=-0.1)
    with pytest.raises(ConfigurationError, match="outside 0 to 1"):
        QBleuWeights(answerability=float("nan"))
    with pytest.raises(ConfigurationError, match=r"sum to 1\.3"):
        QBleuWeights(question_type=0.6)
    assert QBleuWeights(0.6, 0.3, 0.1).function_words == 0
