"""Generated text against gold text: labels, BLEU-1, ROUGE-L, Q-BLEU-1 and distinct n-grams.

Without a gold text, the functions raise a `ConfigurationError`. BLEU without sacrebleu and ROUGE without rouge-score
raise a `MissingExtraError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

from ragweave.errors import ConfigurationError, require_extra
from ragweave.evaluation.metrics.resampling import require_same_length
from ragweave.matching import dpr_tokenize, require_golds

FEVER_3_WAY = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
"""FEVER's labels (Thorne et al. 2018)."""
FEVER_2_WAY = FEVER_3_WAY[:2]
"""The labels of decidable claims; Lewis et al. 2020 and KILT leave out the others."""


def label_match(prediction: str, gold: str) -> float:
    """Return 1.0 if the generated label equals the gold label, ignoring case and outer spaces, else 0.0.

    Source: FEVER's scorer (Thorne et al. 2018).

    Example:
        >>> label_match(" supports", "SUPPORTS")
        1.0
    """
    return float(_normalized_label(prediction) == _normalized_label(gold))


def accuracy(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str] | None = None) -> float:
    """Return the share of correct labels, in [0, 1]. A prediction that is not a label is wrong.

    A gold label that is not in ``labels``, such as `FEVER_2_WAY`, raises a `ConfigurationError`.

    Example:
        >>> accuracy(["SUPPORTS", "maybe"], ["SUPPORTS", "REFUTES"], labels=FEVER_2_WAY)
        0.5
    """
    require_same_length(predictions, golds, "predictions and golds")
    allowed = {_normalized_label(label) for label in (golds if labels is None else labels)}
    if unknown := next((gold for gold in golds if _normalized_label(gold) not in allowed), None):
        raise ConfigurationError(
            f"The gold label {unknown!r} is none of {', '.join(labels or ())}: "
            "leave such claims out, or add the label."
        )
    return sum(map(label_match, predictions, golds)) / len(golds)


def _normalized_label(label: str) -> str:
    return label.strip().casefold()


def bleu_1(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> float:
    """Return unigram BLEU over a whole data set, in [0, 1].

    Clipped matches over the words of all predictions, times the brevity penalty against the gold texts closest in
    length. Source: Papineni et al. 2002, computed by sacrebleu (Post 2018) in lower case with the tokens of
    ``mteval-v13a``. It is not a mean over questions; `sentence_bleu_1` scores a single question.

    Example:
        >>> score = bleu_1(["the cat sat", "a dog"], [["the cat sat down"], ["the dog", "one dog"]])
        >>> round(score, 6)  # four of five words match: 0.8 · exp(1 - 6/5)
        0.654985
    """
    require_same_length(predictions, golds, "predictions and golds")
    for texts in golds:
        require_golds(texts)
    # sacrebleu takes the first gold of all questions, then the second; None stands for a missing one.
    references = [
        [texts[i] if i < len(texts) else None for texts in golds] for i in range(max(map(len, golds)))
    ]
    return _fraction(_bleu("13a").corpus_score(predictions, references))


def sentence_bleu_1(prediction: str, golds: Sequence[str]) -> float:
    """Return unigram BLEU for one prediction, in [0, 1]: `bleu_1` of a data set of one question.

    Example:
        >>> round(sentence_bleu_1("the cat sat on a mat", ["the cat sat on the mat"]), 6)  # five words of six
        0.833333
    """
    return bleu_1([prediction], [golds])


def rouge_l(prediction: str, golds: Sequence[str]) -> float:
    """Return ROUGE-L: F1 of the longest common subsequence of words with the best gold text, in [0, 1].

    Source: Lin 2004, computed by rouge-score like ROUGE-1.5.5: lower case, words are runs of ASCII letters and
    digits, no stemming. A text in another alphabet has no words; use `rouge_l_ms_marco` for it.

    Example:
        >>> rouge_l("the cat on the mat", ["the cat sat on the mat", "a cat"])
        0.9090909090909091
    """
    require_golds(golds)
    return float(_rouge("rouge").score_multi(golds, prediction)["rougeL"].fmeasure)


def rouge_l_ms_marco(prediction: str, golds: Sequence[str]) -> float:
    """Return ROUGE-L as MS-MARCO's evaluation defines it, in [0, 1].

    F with beta 1.2 of the longest common subsequence, from the highest precision and the highest recall with any
    gold text. Source: the evaluation script of MS-MARCO (Bajaj et al. 2016), which is coco-caption's. That script
    takes its words from a spaCy model; this function takes those of `dpr_tokenize`, which splits clitics and
    numbers differently.

    Example:
        >>> round(rouge_l_ms_marco("the cat on the mat", ["the cat sat on the mat", "a cat"]), 6)
        0.894428
    """
    require_golds(golds)
    scores = [_rouge("dpr").score(gold, prediction)["rougeL"] for gold in golds]
    precision = max(score.precision for score in scores)
    recall = max(score.recall for score in scores)
    if precision == 0 or recall == 0:
        return 0.0
    weight = 1.2**2
    return float((1 + weight) * precision * recall / (recall + weight * precision))


def distinct_ngrams(texts: Sequence[str], n: int) -> float:
    """Return the number of distinct word n-grams over all n-grams of all texts, in [0, 1]; higher is more diverse.

    Source: distinct-n of Li et al. 2016, as in table 5 of Lewis et al. 2020 with n = 3. Neither defines a word; this
    function takes those of `dpr_tokenize`. If no text has n words, the ratio is 0.

    Example:
        >>> distinct_ngrams(["a b a b", "a b"], 2)  # a b, b a, a b and a b
        0.5
    """
    require_golds(texts, "texts")
    if n < 1:
        raise ConfigurationError(f"n={n}: give 1 or more.")
    tokenized = [dpr_tokenize(text) for text in texts]
    ngrams = list(chain.from_iterable(zip(*(row[i:] for i in range(n)), strict=False) for row in tokenized))
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


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
    """The weights of Q-BLEU-1. The defaults are those of the SQuAD example in the released script.

    Raises:
        ConfigurationError: A weight is not in [0, 1], or the weights of answerability sum to more than 1.
    """

    named_entities: float = 0.6  # the weight of named entities in answerability
    question_type: float = 0.2  # the weight of the question type
    relevant_words: float = 0.1  # the weight of relevant words. Function words have the rest up to 1.
    # The weight of answerability in the metric (delta). BLEU-1 has the rest up to 1.
    answerability: float = 0.7

    def __post_init__(self) -> None:
        classes = (self.named_entities, self.question_type, self.relevant_words)
        if not all(0 <= weight <= 1 for weight in (*classes, self.answerability)):
            raise ConfigurationError(f"{self} has a weight outside 0 to 1: correct it.")
        if self.function_words < 0:
            raise ConfigurationError(f"The weights of {self} sum to {sum(classes):g}: give weights up to 1.")

    @property
    def function_words(self) -> float:
        """The weight of function words in answerability."""
        # Rounded because 0.6 + 0.3 + 0.1 exceeds 1 in floating point.
        return round(1 - self.named_entities - self.question_type - self.relevant_words, 12)


def q_bleu_1(prediction: str, golds: Sequence[str], weights: QBleuWeights | None = None) -> float:
    """Return Q-BLEU-1 of a generated question with the best gold question, in [0, 1].

    Source: Nema and Khapra 2018, "Towards a Better Metric for Evaluating Question Generation Systems", and its
    released script. The words of a question fall into four classes, which overlap:

        question type   who, what, when ...; after "what" and "which" also the next word
        named entity    a word with a capital letter, except a question word at the beginning
        function word   a word of a list of 119
        relevant        every other word

    As in the script, these rules alone decide, so the first word of a sentence counts as a named entity. For each
    class, precision is BLEU-1 of the prediction against the gold question, recall is BLEU-1 the other way round, and
    answerability is the weighted sum of their F1. A class counts 1 if neither question has it, and 0 if only one has
    it. The script takes its words from Stanford's PTB tokenizer without punctuation; this function takes those of
    `dpr_tokenize` without punctuation, which splits abbreviations ("U.S.") and numbers with a point.

    Example:
        >>> round(q_bleu_1("who is this article?", ["who is this article's author?"]), 5)
        0.82543
    """
    require_golds(golds)
    weights = weights or QBleuWeights()
    return max(_q_bleu_1(prediction, gold, weights) for gold in golds)


def _q_bleu_1(prediction: str, gold: str, weights: QBleuWeights) -> float:
    class_weights = (
        weights.named_entities,
        weights.question_type,
        weights.relevant_words,
        weights.function_words,
    )
    answerability = sum(
        weight * _class_f1(" ".join(predicted), " ".join(expected))
        for weight, predicted, expected in zip(
            class_weights, _word_classes(prediction), _word_classes(gold), strict=True
        )
    )
    fluency = _token_bleu_1(_without_punctuation(prediction), _without_punctuation(gold))
    score = weights.answerability * answerability + (1 - weights.answerability) * fluency
    return min(1.0, score)  # rounding can lift a sum of weights above 1


def _word_classes(question: str) -> tuple[list[str], list[str], list[str], list[str]]:
    """Named entities, question type, relevant words and function words, split at spaces."""
    words = question.split()
    question_type = []
    for i, word in enumerate(words):
        if word in _QUESTION_WORDS:
            question_type.append(word)
            if word.lower() in ("what", "which"):
                question_type += words[i + 1 : i + 2]
    begins_with_question_word = bool(words) and words[0].lower() in _QUESTION_WORDS
    named_entities = [word for word in words[begins_with_question_word:] if word[0].isupper()]
    relevant = [
        word
        for word in words
        if word not in question_type and not word[0].isupper() and word not in _FUNCTION_WORDS
    ]
    function_words = [word for word in words if word.lower() in _FUNCTION_WORDS]
    return named_entities, question_type, relevant, function_words


def _class_f1(prediction: str, gold: str) -> float:
    """F1 of the words of one class."""
    if not prediction and not gold:
        return 1.0
    predicted, expected = _without_punctuation(prediction), _without_punctuation(gold)
    precision, recall = _token_bleu_1(predicted, expected), _token_bleu_1(expected, predicted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _without_punctuation(text: str) -> list[str]:
    return [token for token in dpr_tokenize(text) if token[0].isalnum()]


def _token_bleu_1(prediction: Sequence[str], gold: Sequence[str]) -> float:
    """Unigram BLEU of one tokenized prediction, in [0, 1]."""
    return _fraction(_bleu("none").sentence_score(" ".join(prediction), [" ".join(gold)]))


def _fraction(score: Any) -> float:
    """A score of sacrebleu, which is in per cent and sometimes 100.00000000000004, in [0, 1]."""
    return min(1.0, float(score.score) / 100)


@cache
def _bleu(tokenizer: str) -> Any:
    require_extra("sacrebleu", "eval")
    from sacrebleu.metrics.bleu import BLEU

    # effective_order has no effect on unigrams; without it sacrebleu warns about single sentences.
    return BLEU(
        lowercase=True, tokenize=tokenizer, smooth_method="none", max_ngram_order=1, effective_order=True
    )


@cache
def _rouge(tokens: str) -> Any:
    require_extra("rouge_score", "eval")
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_DprTokenizer() if tokens == "dpr" else None)


class _DprTokenizer:
    """`dpr_tokenize` with the interface of a rouge-score tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return dpr_tokenize(text)
