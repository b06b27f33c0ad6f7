"""The generator's contexts: passage and question in one string, truncated without losing the question."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ragweave.errors import QuestionError

# Units to cut a text at: a word with the space before it (at most 32 characters of it), or a character of a script
# without spaces between words (Chinese, Japanese and everything after them in Unicode).
_UNIT = re.compile(r"\s*(?:[\u2e80-\U0010ffff]|[^\s\u2e80-\U0010ffff]{1,32})")
_GUESSES = 4


@dataclass(frozen=True)
class ContextTemplate:
    """How passage and question are joined: ``prefix title title_sep text doc_sep question answer_sep``."""

    prefix: str = ""  # text at the beginning
    title_sep: str = " / "  # text between title and passage
    doc_sep: str = " // "  # text between passage and question
    answer_sep: str = ""  # text after the question

    def fill(self, title: str, text: str, question: str) -> str:
        """One context. Like transformers, it collapses double spaces and drops quotes around a title."""
        return f"{self._passage(title, text)}{self.doc_sep}{question}{self.answer_sep}".replace("  ", " ")

    def passage_part(self, title: str, text: str) -> str:
        """The part of a context before the question."""
        return self._passage(title, text).replace("  ", " ")

    def question_part(self, question: str) -> str:
        """The part of a context after the passage."""
        return f"{self.doc_sep}{question}{self.answer_sep}".replace("  ", " ")

    def _passage(self, title: str, text: str) -> str:
        title = title.removeprefix('"').removesuffix('"')
        return f"{self.prefix}{title}{self.title_sep}{text}"


def context_tokens(
    template: ContextTemplate,
    passages: Sequence[tuple[str, str]],
    questions: Sequence[str],
    tokenizer: Any,
    max_length: int,
    *,
    causal: bool,
) -> list[list[int]]:
    """The contexts of a generator: by `fit_parts` for a causal one, by `fit` for a seq2seq one."""
    if causal:
        return fit_parts(template, passages, questions, tokenizer, max_length)
    return fit(template, passages, questions, token_ids(tokenizer), max_length)


def fit(
    template: ContextTemplate,
    passages: Sequence[tuple[str, str]],
    questions: Sequence[str],
    tokenize: Callable[[list[str]], list[list[int]]],
    max_length: int,
) -> list[list[int]]:
    """Fill the template for each of M passages (title, text) and its question, truncating passages that are too long.

    ``tokenize`` returns the token ids of texts, special tokens included. Returns token ids of M contexts, at most
    ``max_length`` each. Raises `QuestionError` if a question alone, with its separators, is longer than that.
    """
    contexts = [template.fill(title, text, q) for (title, text), q in zip(passages, questions, strict=True)]
    rows = tokenize(contexts)
    for number in [number for number, ids in enumerate(rows) if len(ids) > max_length]:
        (title, text), question = passages[number], questions[number]

        def encode(title: str, text: str, question: str = question) -> list[int]:
            return tokenize([template.fill(title, text, question)])[0]

        bare, titled = encode("", ""), encode(title, "")
        if len(bare) > max_length:
            raise _too_long(question, max_length)
        if len(titled) > max_length:
            rows[number] = _longest(title, lambda part: encode(part, ""), bare, len(titled), max_length)
        else:
            whole = len(rows[number])
            rows[number] = _longest(text, partial(encode, title), titled, whole, max_length)
    return rows


def fit_parts(
    template: ContextTemplate,
    passages: Sequence[tuple[str, str]],
    questions: Sequence[str],
    tokenizer: Any,
    max_length: int,
) -> list[list[int]]:
    """Contexts of a causal generator: the tokens of the passage, then those of the question.

    Both are tokenized separately, so that the tokens before the question depend only on the passage, with every
    tokenizer. The end of a passage whose context would be too long is cut off. Errors as for `fit`.
    """
    rows = passage_tokens(template, passages, tokenizer)
    begin = len(begin_tokens(tokenizer))
    tails = question_tokens(template, questions, tokenizer)
    for number, (question, tail) in enumerate(zip(questions, tails, strict=True)):
        room = max_length - len(tail)
        if room < begin:
            raise _too_long(question, max_length)
        rows[number] = rows[number][:room] + tail
    return rows


def passage_tokens(
    template: ContextTemplate, passages: Sequence[tuple[str, str]], tokenizer: Any
) -> list[list[int]]:
    """The tokens before the question in a causal generator's contexts, for M passages (title, text)."""
    plain = _without_marks(tokenizer)
    texts = [template.passage_part(plain(title), plain(text)) for title, text in passages]
    begin, tokens = begin_tokens(tokenizer), _tokens_of(tokenizer, texts)
    return [[*begin, *tokens[text]] for text in texts]


def question_tokens(template: ContextTemplate, questions: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """The tokens after the passage in a causal generator's contexts, for M questions."""
    plain = _without_marks(tokenizer)
    texts = [template.question_part(plain(question)) for question in questions]
    tokens = _tokens_of(tokenizer, texts)
    return [tokens[text] for text in texts]


def _without_marks(tokenizer: Any) -> Callable[[str], str]:
    """A function that splits names of special tokens in a text, so that the text cannot end its turn in a chat."""
    marks = sorted({mark for mark in tokenizer.all_special_tokens if len(mark) > 1}, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, marks)) or "(?!)")
    return partial(pattern.sub, lambda mark: f"{mark[0][0]} {mark[0][1:]}")


def begin_tokens(tokenizer: Any) -> list[int]:
    """The special tokens that a tokenizer puts before a text."""
    ids: list[int] = tokenizer("")["input_ids"]
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id != tokenizer.bos_token_id else ids


def _tokens_of(tokenizer: Any, texts: Sequence[str]) -> dict[str, list[int]]:
    """The tokens of each distinct text, without special tokens."""
    distinct = list(dict.fromkeys(texts))
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    return dict(zip(distinct, tokenizer(distinct, **options)["input_ids"], strict=True)) if distinct else {}


def _too_long(question: str, max_length: int) -> QuestionError:
    return QuestionError(
        f"The question does not fit into max_combined_length={max_length} tokens; ask a shorter one, "
        f"or raise max_combined_length: {question[:80]!r}..."
    )


def _longest(
    text: str, encode: Callable[[str], list[int]], fitting: list[int], too_long: int, max_length: int
) -> list[int]:
    """The context with the longest prefix of a text that fits; ``fitting`` are the token ids for the empty prefix."""
    ends = [unit.end() for unit in _UNIT.finditer(text)]
    low, high = 0, len(ends)  # ``low`` units fit, ``high`` do not
    guesses = _GUESSES
    while high - low > 1:
        # Tokens are spread evenly over most texts, so interpolation comes close in one or two steps.
        share = (max_length - len(fitting)) / (too_long - len(fitting)) if guesses > 0 else 0.5
        guesses -= 1
        middle = low + min(max(int(share * (high - low)), 1), high - low - 1)
        ids = encode(text[: ends[middle - 1]])
        if len(ids) <= max_length:
            low, fitting = middle, ids
        else:
            high, too_long = middle, len(ids)
    return fitting


def token_ids(tokenizer: Any) -> Callable[[list[str]], list[list[int]]]:
    """A function from texts to their token ids, without truncation and its warning."""
    options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    return lambda texts: tokenizer(texts, padding=False, truncation=False, **options)["input_ids"]


def answer_ids(tokenizer: Any, answer: str, *, causal: bool) -> list[int]:
    """Token ids of an answer, "" for the empty one, as a generator is trained on it.

    The answers of a causal generator start with a space and end with the end token.
    """
    text = f" {answer}" if causal and answer else answer
    ids: list[int] = tokenizer(text, add_special_tokens=not causal, truncation=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id] if causal else ids


def padded(
    rows: Sequence[Sequence[int]], length: int, *, side: str, pad_token: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Pad M rows of at most ``length`` token ids on a side, "left" or "right".

    Returns:
        Token ids and their mask, (M, S).
    """
    ids, mask = [], []
    for row in rows:
        empty = length - len(row)
        before, after = (empty, 0) if side == "left" else (0, empty)
        ids.append([pad_token] * before + list(row) + [pad_token] * after)
        mask.append([0] * before + [1] * len(row) + [0] * after)
    return ids, mask
