"""The generator's contexts: a passage and the question in one string, cut to length without losing the question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ragweave.errors import QuestionError


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
        """One context. Double spaces inside it become one, and quotes around a title go, as in transformers."""
        title = title.removeprefix('"').removesuffix('"')
        joined = f"{self.prefix}{title}{self.title_sep}{text}{self.doc_sep}{question}{self.answer_sep}"
        return joined.replace("  ", " ")


def fit(
    template: ContextTemplate,
    passages: Sequence[tuple[str, str]],
    questions: Sequence[str],
    tokenize: Callable[[list[str]], list[list[int]]],
    max_length: int,
) -> list[str]:
    """Fill the template for each passage, cutting passages whose context would be too long.

    Args:
        template: How to put a context together.
        passages: (title, text) of M passages.
        questions: The question that goes with each, M of them.
        tokenize: Gives the token ids of texts, special tokens included.
        max_length: Most tokens that a context may have.

    Returns:
        M contexts of at most ``max_length`` tokens each.

    Raises:
        QuestionError: A question alone, with its separators, is longer than that.
    """
    contexts = [template.fill(title, text, q) for (title, text), q in zip(passages, questions, strict=True)]
    lengths = [len(ids) for ids in tokenize(contexts)]
    for number in [number for number, length in enumerate(lengths) if length > max_length]:
        contexts[number] = _cut(template, *passages[number], questions[number], tokenize, max_length)
    return contexts


def _cut(
    template: ContextTemplate,
    title: str,
    text: str,
    question: str,
    tokenize: Callable[[list[str]], list[list[int]]],
    max_length: int,
) -> str:
    """The context with as many of the passage's words as fit, found by bisection; then the title's."""

    def length_with(kept_title: str, kept_text: str) -> int:
        return len(tokenize([template.fill(kept_title, kept_text, question)])[0])

    if length_with("", "") > max_length:
        raise QuestionError(
            f"The question does not fit into max_combined_length={max_length} tokens; ask a shorter one, or raise "
            f"max_combined_length: {question[:80]!r}..."
        )
    if length_with(title, "") > max_length:
        return template.fill(_longest(title, lambda part: length_with(part, "") <= max_length), "", question)
    return template.fill(title, _longest(text, lambda part: length_with(title, part) <= max_length), question)


def _longest(text: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of a text, in whole words, that fits; the empty one always does."""
    words = text.split(" ")
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(" ".join(words[:middle])):
            low = middle
        else:
            high = middle - 1
    return " ".join(words[:low])


def token_ids(tokenizer: Any) -> Callable[[list[str]], list[list[int]]]:
    """A function from texts to their token ids, with no limit and no warning about one."""
    return lambda texts: tokenizer(texts, padding=False, truncation=False, verbose=False)["input_ids"]
