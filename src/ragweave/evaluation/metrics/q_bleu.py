"""Q-BLEU-1 for generated questions: BLEU-1 and whether what makes a question answerable is there.

Source: Nema and Khapra 2018, "Towards a Better Metric for Evaluating Question Generation Systems", and the script
that they released with it. The words of a question are of four kinds, which overlap:

    question type   who, what, when ...; after what and which, the next word too
    named entity    every word that begins with a capital letter, but a question word in front
    function word   a word of a list of 119
    relevant        every word that is of no other kind

As in the script, kinds are told by these rules alone, with no model; a sentence's first word thus counts as a named
entity. Of each kind, BLEU-1 of the prediction against the gold question is the precision, BLEU-1 the other way round
the recall, and answerability is the weighted sum of their F1. A kind that neither has counts 1, one that only
one of them has counts 0. The script's words are those of Stanford's PTB tokenizer without punctuation; here they are
those of `words` without punctuation, which parts abbreviations ("U.S.") and numbers with a point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics.checks import require_golds
from ragweave.evaluation.metrics.generation import token_bleu_1
from ragweave.evaluation.metrics.words import words

_QUESTION_WORDS = frozenset("what which why who whom whose where when how".split())  # noqa: SIM905
_QUESTION_WORDS |= {word.capitalize() for word in _QUESTION_WORDS}
_FUNCTION_WORDS = frozenset(
    """a about above after again against all am an and any are as at be because been before being below between
    both but by can did do does doing don down during each few for from further had has have having he her here
    hers herself him himself his i if in into is it its itself just me more most my myself no nor not now of off
    on once only or other our ours ourselves out over own same she should so some such s t than that the their
    theirs them themselves then there these they this those through to too under until up very was we were while
    will with you your yours yourself yourselves""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class QBleuWeights:
    """What counts how much in Q-BLEU-1. The defaults are those of the example for SQuAD in the released script.

    Attributes:
        named_entities: Share of named entities in answerability.
        question_type: Share of the question type.
        relevant_words: Share of relevant words. Function words have what is left of 1.
        answerability: Share of answerability in the metric (delta). BLEU-1 has what is left of 1.

    Raises:
        ConfigurationError: A share is below 0 or above 1, or those of answerability sum to more than 1.
    """

    named_entities: float = 0.6
    question_type: float = 0.2
    relevant_words: float = 0.1
    answerability: float = 0.7

    def __post_init__(self) -> None:
        kinds = (self.named_entities, self.question_type, self.relevant_words)
        if not all(0 <= share <= 1 for share in (*kinds, self.answerability)):
            raise ConfigurationError(f"{self} has a share outside 0 to 1: mend it.")
        if self.function_words < 0:
            raise ConfigurationError(f"The shares of {self} sum to {sum(kinds):g}: make it 1 at most.")

    @property
    def function_words(self) -> float:
        """Share of function words in answerability."""
        # 0.6 + 0.3 + 0.1 is 1 but for rounding.
        return round(1 - self.named_entities - self.question_type - self.relevant_words, 12)


def q_bleu_1(prediction: str, golds: Sequence[str], weights: QBleuWeights | None = None) -> float:
    """Q-BLEU-1 of one question with the best gold question, in [0, 1]; the head of this file has its definition.

    Args:
        prediction: The question that was generated.
        golds: The gold questions.
        weights: What counts how much.

    Raises:
        ConfigurationError: There is no gold question.
        MissingExtraError: sacrebleu or regex is not installed.

    Example:
        >>> round(q_bleu_1("who is this article?", ["who is this article's author?"]), 5)
        0.82543
    """
    require_golds(golds)
    weights = weights or QBleuWeights()
    return max(_q_bleu_1(prediction, gold, weights) for gold in golds)


def _q_bleu_1(prediction: str, gold: str, weights: QBleuWeights) -> float:
    predicted, wanted = _kinds(prediction), _kinds(gold)
    shares = (weights.named_entities, weights.question_type, weights.relevant_words, weights.function_words)
    answerability = sum(
        share * _agreement(" ".join(one), " ".join(other))
        for share, one, other in zip(shares, predicted, wanted, strict=True)
    )
    fluency = token_bleu_1(_without_punctuation(prediction), _without_punctuation(gold))
    score = weights.answerability * answerability + (1 - weights.answerability) * fluency
    return min(1.0, score)  # shares that sum to 1 do so but for rounding


def _kinds(question: str) -> tuple[list[str], list[str], list[str], list[str]]:
    """Named entities, question type, relevant words and function words, as they stand between spaces."""
    split = question.split()
    question_type = []
    for i, word in enumerate(split):
        if word in _QUESTION_WORDS:
            question_type.append(word)
            if word.lower() in ("what", "which"):
                question_type += split[i + 1 : i + 2]
    begins_with_question_word = bool(split) and split[0].lower() in _QUESTION_WORDS
    named_entities = [word for word in split[begins_with_question_word:] if word[0].isupper()]
    relevant = [
        word
        for word in split
        if word not in question_type and not word[0].isupper() and word not in _FUNCTION_WORDS
    ]
    function_words = [word for word in split if word.lower() in _FUNCTION_WORDS]
    return named_entities, question_type, relevant, function_words


def _agreement(prediction: str, gold: str) -> float:
    """F1 of the words of one kind."""
    if not prediction and not gold:
        return 1.0
    predicted, wanted = _without_punctuation(prediction), _without_punctuation(gold)
    precision, recall = token_bleu_1(predicted, wanted), token_bleu_1(wanted, predicted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _without_punctuation(text: str) -> list[str]:
    return [word for word in words(text) if word[0].isalnum()]
