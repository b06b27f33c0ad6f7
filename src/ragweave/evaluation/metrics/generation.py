"""Longer texts against gold texts: BLEU-1, ROUGE-L, and how much they repeat themselves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

from ragweave.errors import ConfigurationError, require_extra
from ragweave.evaluation.metrics.checks import require_golds, require_same_length
from ragweave.evaluation.metrics.words import words


def bleu_1(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> float:
    """BLEU with single words, over a whole data set, in [0, 1].

    Clipped matches over words of all predictions, times the brevity penalty against the gold texts closest in
    length. Source: Papineni et al. 2002, computed by sacrebleu (Post 2018) in lower case with the tokens of
    ``mteval-v13a``. It is no mean over questions: for one of them there is `sentence_bleu_1`.

    Args:
        predictions: One text per question.
        golds: The gold texts of every question, at least one each.

    Raises:
        ConfigurationError: There are not as many golds as predictions, or a question has none.
        MissingExtraError: sacrebleu is not installed.

    Example:
        >>> score = bleu_1(["the cat sat", "a dog"], [["the cat sat down"], ["the dog", "one dog"]])
        >>> round(score, 6)  # four of five words match: 0.8 · exp(1 - 6/5)
        0.654985
    """
    require_same_length(predictions, golds, "predictions and golds")
    for own in golds:
        require_golds(own)
    most = max(map(len, golds))
    # sacrebleu takes the first gold of all questions, then the second; None stands where a question has no more.
    references = [[own[i] if i < len(own) else None for own in golds] for i in range(most)]
    return _share(_bleu("13a").corpus_score(predictions, references))


def sentence_bleu_1(prediction: str, golds: Sequence[str]) -> float:
    """BLEU with single words for one prediction, in [0, 1]: `bleu_1` of a data set of one question.

    Raises:
        ConfigurationError: There is no gold text.
        MissingExtraError: sacrebleu is not installed.

    Example:
        >>> round(sentence_bleu_1("the cat sat on a mat", ["the cat sat on the mat"]), 6)  # five words of six
        0.833333
    """
    return bleu_1([prediction], [golds])


def token_bleu_1(prediction: Sequence[str], gold: Sequence[str]) -> float:
    """BLEU with single words of one prediction that is split into words, in [0, 1]."""
    return _share(_bleu("none").sentence_score(" ".join(prediction), [" ".join(gold)]))


def rouge_l(prediction: str, golds: Sequence[str]) -> float:
    """ROUGE-L: F1 of the longest common subsequence of words with the best gold text, in [0, 1].

    Source: Lin 2004, computed by rouge-score as ROUGE-1.5.5 does: lower case, runs of ASCII letters and digits are
    words, no stemming. A text in another alphabet has no words; take `rouge_l_ms_marco` for it.

    Raises:
        ConfigurationError: There is no gold text.
        MissingExtraError: rouge-score is not installed.

    Example:
        >>> rouge_l("the cat on the mat", ["the cat sat on the mat", "a cat"])
        0.9090909090909091
    """
    require_golds(golds)
    return float(_rouge("rouge").score_multi(golds, prediction)["rougeL"].fmeasure)


def rouge_l_ms_marco(prediction: str, golds: Sequence[str]) -> float:
    """ROUGE-L as MS-MARCO's evaluation takes it, in [0, 1]: recall counts for more, and golds are taken together.

    F of the longest common subsequence with beta 1.2, from the highest precision with any gold text and the highest
    recall with any. Source: the evaluation script of MS-MARCO (Bajaj et al. 2016), which is coco-caption's. Its
    words come from a model of spaCy; here they are those of `words`, which parts clitics and numbers otherwise.

    Raises:
        ConfigurationError: There is no gold text.
        MissingExtraError: rouge-score is not installed.

    Example:
        >>> round(rouge_l_ms_marco("the cat on the mat", ["the cat sat on the mat", "a cat"]), 6)
        0.894428
    """
    require_golds(golds)
    scores = [_rouge("words").score(gold, prediction)["rougeL"] for gold in golds]
    precision = max(score.precision for score in scores)
    recall = max(score.recall for score in scores)
    if precision == 0 or recall == 0:
        return 0.0
    weight = 1.2**2
    return float((1 + weight) * precision * recall / (recall + weight * precision))


def distinct_ngrams(texts: Sequence[str], n: int) -> float:
    """Distinct runs of n words over all runs of n words in the texts together, in [0, 1]; higher is more diverse.

    Source: distinct-n of Li et al. 2016, as table 5 of Lewis et al. 2020 has it for n 3. Neither says what a word
    is: here it is as `words` splits. Where no text has n words, the ratio is 0.

    Raises:
        ConfigurationError: There is no text, or ``n`` is less than one.

    Example:
        >>> distinct_ngrams(["a b a b", "a b"], 2)  # a b, b a, a b and a b
        0.5
    """
    require_golds(texts, "texts")
    if n < 1:
        raise ConfigurationError(f"n={n}: runs of words have one word or more.")
    split = [words(text) for text in texts]
    ngrams = list(chain.from_iterable(zip(*(own[i:] for i in range(n)), strict=False) for own in split))
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _share(score: Any) -> float:
    """A score of sacrebleu, which has per cent and now and then 100.00000000000004 of them."""
    return min(1.0, float(score.score) / 100)


@cache
def _bleu(tokenizer: str) -> Any:
    require_extra("sacrebleu", "eval")
    from sacrebleu.metrics.bleu import BLEU

    # effective_order changes nothing for single words; without it sacrebleu warns about sentences.
    return BLEU(
        lowercase=True, tokenize=tokenizer, smooth_method="none", max_ngram_order=1, effective_order=True
    )


@cache
def _rouge(tokens: str) -> Any:
    require_extra("rouge_score", "eval")
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words() if tokens == "words" else None)


class _Words:
    """`words` in the form that rouge-score takes a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)
