"""Decoding only what stands in the passages: answers are runs of whole words of one of them.

A small generator that may say anything paraphrases, repeats itself and goes on too long. Held to the passages'
own words, it points at an answer instead (issue 1 has the figures that led here).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

_WORD_START = re.compile(r"(?<![\w'’])(?=[\w$€£¥%])|(?<=\s)(?=\S)|^(?=\S)")
_END = -1  # stands in the tree of runs for "a whole word has ended here"

Tree = dict[int, Any]


class PassageSpans:
    """All runs of whole words in some passages, as a tree of token ids.

    Args:
        texts: The passages.
        tokenizer: The generator's tokenizer.
        eos_token_id: What ends an answer.
        max_words: The longest run, in words.
    """

    def __init__(
        self, texts: Sequence[str], tokenizer: Any, *, eos_token_id: int, max_words: int = 16
    ) -> None:
        self._eos = eos_token_id
        self._tree: Tree = {}
        runs = [run for text in texts for run in word_runs(text, max_words)]
        if not runs:
            return
        encoded = tokenizer(
            [" " + run for run in runs], add_special_tokens=False, return_offsets_mapping=True
        )
        for run, ids, offsets in zip(runs, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            self._add(run, ids, offsets)

    def allowed(self, answer: Sequence[int]) -> list[int]:
        """Token ids that may follow what has been said so far.

        Args:
            answer: Token ids after the start token.
        """
        node: Tree | None = self._tree
        for token in answer:
            node = node.get(token) if node is not None else None
        if not node:
            return [self._eos]
        following = [token for token in node if token != _END]
        return [*following, self._eos] if _END in node else following or [self._eos]

    def _add(self, run: str, ids: list[int], offsets: list[tuple[int, int]]) -> None:
        text = " " + run
        node = self._tree
        for token, (_, end) in zip(ids, offsets, strict=True):
            node = node.setdefault(token, {})
            if end >= len(text) or (_is_word(text[end - 1]) and not _is_word(text[end])):
                node[_END] = {}


def word_runs(text: str, max_words: int) -> list[str]:
    """For every word of a text, what begins there: at most so many words, in one line."""
    runs = []
    for start in (match.start() for match in _WORD_START.finditer(text)):
        line = text[start:].split("\n", 1)[0]
        run = " ".join(line.split(" ")[:max_words]).rstrip()
        if run:
            runs.append(run)
    return runs


def spans_only(spans: Sequence[PassageSpans]) -> Callable[[int, Tensor], list[int]]:
    """A ``prefix_allowed_tokens_fn`` for ``generate`` that holds question b to the runs of ``spans[b]``."""

    def allowed(batch_id: int, input_ids: Tensor) -> list[int]:
        return spans[batch_id].allowed(input_ids[1:].tolist())

    return allowed


def _is_word(character: str) -> bool:
    return character.isalnum() or character in "%'’"
