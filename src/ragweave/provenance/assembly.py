"""From token sequences and posteriors to answers: token texts, and the words of the passages that support them.

Notation used for tensor shapes: B questions, K passages per question, T answer tokens.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any

from torch import Tensor

from ragweave.provenance.answers import Answer, AnswerToken, Field, RetrievedPassage, Support
from ragweave.provenance.posteriors import Provenance
from ragweave.types import ScoredPassage

_WORD = re.compile(r"\w+")


def assemble(
    questions: Sequence[str],
    passages: Sequence[Sequence[ScoredPassage | None]],
    sequences: Tensor,
    provenance: Provenance,
    tokenizer: Any,
) -> list[Answer]:
    """Make B answers.

    Args:
        questions: The questions.
        passages: The K passages of each; ``None`` where there is none.
        sequences: The answers as ``generate`` returned them, (B, 1+T), start token first.
        provenance: Their likelihoods and posteriors.
        tokenizer: The generator's tokenizer.
    """
    texts = tokenizer.batch_decode(sequences[:, 1:], skip_special_tokens=True)
    answers = []
    for b, (question, text) in enumerate(zip(questions, texts, strict=True)):
        posterior = provenance.posterior[b].tolist()
        ranked = sorted(
            ((k, passage) for k, passage in enumerate(passages[b]) if passage is not None),
            key=lambda pair: -posterior[pair[0]],
        )
        order = [k for k, _ in ranked]
        retrieved = tuple(
            RetrievedPassage(**asdict(passage), posterior=posterior[k]) for k, passage in ranked
        )
        scored = provenance.scored[b]
        tokens = _tokens(
            text.strip(),
            token_texts(sequences[b, 1:][scored].tolist(), text.strip(), tokenizer),
            provenance.token_posteriors[b][order][:, scored].T.tolist(),
            retrieved,
        )
        likelihood = float(provenance.log_likelihood[b])
        answers.append(Answer(question, text.strip(), likelihood, retrieved, tokens))
    return answers


def token_texts(token_ids: Sequence[int], text: str, tokenizer: Any) -> list[str]:
    """Cut a decoded text where its tokens end.

    Args:
        token_ids: T token ids.
        text: The decoded tokens, without special tokens and surrounding white space.
        tokenizer: The tokenizer that decoded them.

    Returns:
        T texts that make up ``text``. A character that several tokens spell belongs to the last of them.
    """
    prefixes = [token_ids[:count] for count in range(1, len(token_ids))]
    decoded = tokenizer.batch_decode(prefixes, skip_special_tokens=True) if prefixes else []
    ends = [0]
    for prefix in decoded:
        # A prefix that ends inside a character decodes to other last characters than the text has.
        ends.append(max(ends[-1], common_length(prefix.lstrip(), text)))
    ends.append(len(text))
    return [text[start:end] for start, end in pairwise(ends)][: len(token_ids)]


def common_length(one: str, other: str) -> int:
    """Length of the common prefix of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((position for position, (a, b) in pairs if a != b), min(len(one), len(other)))


def _tokens(
    answer: str,
    texts: Sequence[str],
    posteriors: Sequence[Sequence[float]],
    passages: Sequence[RetrievedPassage],
) -> tuple[AnswerToken, ...]:
    """Tokens from their T texts, their (T, K) posteriors, and the words that support them."""
    runs: dict[int, dict[Field, list[Run | None]]] = {}
    tokens = []
    for text, end, posterior in zip(texts, accumulate(map(len, texts)), posteriors, strict=True):
        token = AnswerToken(text, tuple(posterior), None)
        best = token.passage
        if best is not None and text:
            if best not in runs:
                passage = passages[best]
                runs[best] = {
                    "text": supporting_runs(answer, passage.text),
                    "title": supporting_runs(answer, passage.title),
                }
            token = AnswerToken(text, token.posteriors, _support(best, runs[best], end - len(text), end))
        tokens.append(token)
    return tuple(tokens)


def _support(passage: int, runs: dict[Field, list[Run | None]], start: int, end: int) -> Support | None:
    """The longest run of words around the characters of a token; the text wins over the title."""
    longest: tuple[int, Support] | None = None
    for field, field_runs in runs.items():
        for run in field_runs[start:end]:
            if run is not None and (longest is None or run.words > longest[0]):
                longest = run.words, Support(passage, field, run.start, run.end)
    return None if longest is None else longest[1]


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive words of a text.

    Attributes:
        words: How many.
        start: Where they begin, in characters.
        end: Where they end.
    """

    words: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Word:
    form: str
    start: int
    end: int


def supporting_runs(answer: str, text: str) -> list[Run | None]:
    """Find what an answer repeats of a text. Case and what is between words do not matter.

    Args:
        answer: The answer.
        text: A passage's text, or its title.

    Returns:
        For every character of the answer, the longest run of the answer's words that includes this character's word
        and is in the text (the first of several); ``None`` between words, and for words that the text does not have.
    """
    words = _words(answer)
    by_character: list[Run | None] = [None] * len(answer)
    for word, run in zip(words, _longest_runs(words, _words(text)), strict=True):
        by_character[word.start : word.end] = [run] * (word.end - word.start)
    return by_character


def _words(text: str) -> list[_Word]:
    return [_Word(word.group().casefold(), *word.span()) for word in _WORD.finditer(text)]


def _longest_runs(answer: Sequence[_Word], text: Sequence[_Word]) -> list[Run | None]:
    """For every word of the answer, the longest run around it that is in the text."""
    positions = defaultdict(list)
    for position, word in enumerate(text):
        positions[word.form].append(position)
    best: list[Run | None] = [None] * len(answer)
    for first, word in enumerate(answer):
        for position in positions.get(word.form, ()):
            if first and position and answer[first - 1].form == text[position - 1].form:
                continue  # the middle of a run that was found from its beginning
            length = 1
            while (
                first + length < len(answer)
                and position + length < len(text)
                and answer[first + length].form == text[position + length].form
            ):
                length += 1
            run = Run(length, text[position].start, text[position + length - 1].end)
            for number in range(first, first + length):
                known = best[number]
                if known is None or (-run.words, run.start) < (-known.words, known.start):
                    best[number] = run
    return best
