"""The generator's contexts: a passage and the question in one string, cut without losing the question."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ragweave.errors import QuestionError

# What a text is cut into: a word with the space before it (of a longer one, 32 characters at a time), or a
# character of a script without spaces between words (Chinese, Japanese and what follows them in Unicode).
_PIECE = re.compile(r"\s*(?:[\u2e80-\U0010ffff]|[^\s\u2e80-\U0010ffff]{1,32})")


@dataclass(frozen=True)
class ContextTemplate:
    """How passage and question are put together: ``prefix title title_sep text doc_sep question answer_sep``.

    Attributes:
        prefix: Text at the beginning.
        title_sep: Text between title and passage.
        doc_sep: Text between passage and question.
        answer_sep: Text after the question.
    """

    prefix: str = ""
    title_sep: str = " / "
    doc_sep: str = " // "
    answer_sep: str = ""

    def fill(self, title: str, text: str, question: str) -> str:
        """One context. Double spaces become one, and quotes around a title go, as in transformers."""
        title = title.removeprefix('"').removesuffix('"')
        joined = f"{self.prefix}{title}{self.title_sep}{text}{self.doc_sep}{question}{self.answer_sep}"
        return joined.replace("  ", " ")


def fit(
    template: ContextTemplate,
    passages: Sequence[tuple[str, str]],
    questions: Sequence[str],
    tokenize: Callable[[list[str]], list[list[int]]],
    max_length: int,
) -> list[list[int]]:
    """Fill the template for each passage, cutting passages whose context would be too long.

    Args:
        template: How to put a context together.
        passages: (title, text) of M passages.
        questions: The question that goes with each, M of them.
        tokenize: Gives the token ids of texts, special tokens included.
        max_length: Most tokens that a context may have.

    Returns:
        Token ids of M contexts, at most ``max_length`` each.

    Raises:
        QuestionError: A question alone, with its separators, is longer than that.
    """
    contexts = [template.fill(title, text, q) for (title, text), q in zip(passages, questions, strict=True)]
    rows = tokenize(contexts)
    for number in [number for number, ids in enumerate(rows) if len(ids) > max_length]:
        rows[number] = _cut(template, *passages[number], questions[number], tokenize, max_length)
    return rows


def _cut(
    template: ContextTemplate,
    title: str,
    text: str,
    question: str,
    tokenize: Callable[[list[str]], list[list[int]]],
    max_length: int,
) -> list[int]:
    """The context with as many of the passage's words as fit; where its title is too long, of the title's."""

    def within(kept_title: str, kept_text: str) -> list[int] | None:
        ids = tokenize([template.fill(kept_title, kept_text, question)])[0]
        return ids if len(ids) <= max_length else None

    bare = within("", "")
    if bare is None:
        raise QuestionError(
            f"The question does not fit into max_combined_length={max_length} tokens; ask a shorter one, or "
            f"raise max_combined_length: {question[:80]!r}..."
        )
    titled = within(title, "")
    if titled is None:
        return _longest(title, lambda part: within(part, "")) or bare
    return _longest(text, lambda part: within(title, part)) or titled


def _longest(text: str, within: Callable[[str], list[int] | None]) -> list[int] | None:
    """What ``within`` gives for the longest beginning of a text for which it gives anything, by bisection."""
    ends = [piece.end() for piece in _PIECE.finditer(text)]
    best, low, high = None, 0, len(ends)
    while low < high:
        middle = (low + high + 1) // 2
        found = within(text[: ends[middle - 1]])
        if found is not None:
            best, low = found, middle
        else:
            high = middle - 1
    return best


def token_ids(tokenizer: Any) -> Callable[[list[str]], list[list[int]]]:
    """A function from texts to their token ids, with no limit and no warning about one."""

    def tokenize(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(
            texts,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return ids

    return tokenize


def padded(
    rows: Sequence[Sequence[int]], length: int, *, side: str, filler: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of token ids, all of one length.

    Args:
        rows: M rows of at most ``length`` ids.
        length: S.
        side: Where to fill rows up, "left" or "right".
        filler: What with.

    Returns:
        Token ids and their mask, (M, S).
    """
    ids, mask = [], []
    for row in rows:
        empty = length - len(row)
        before, after = (empty, 0) if side == "left" else (0, empty)
        ids.append([filler] * before + list(row) + [filler] * after)
        mask.append([0] * before + [1] * len(row) + [0] * after)
    return ids, mask
