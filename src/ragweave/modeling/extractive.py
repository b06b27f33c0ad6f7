"""Decoding only what stands in the passages: answers are runs of whole words of one of them.

A small generator that may say anything paraphrases, repeats itself and goes on too long. Held to the
passages' own words, it points at an answer instead.

An answer begins where a word begins and ends where a word ends. "1,234.5", "$5.2", "18%", "U.S." and "don't"
are words, and so is every Chinese or Japanese character; "well-known" and "km/h" are two each. Punctuation
around an answer is therefore not part of it, but for brackets and quotes that are opened and closed within
it: of "the yen (JPY), a currency" come "JPY", "(JPY)" and "yen (JPY)", and never "yen (JPY".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

from torch import Tensor

# A word, in the kinds of its characters; see `_kind`.
_WORD = re.compile(
    r"""
    c                                            # a character of Chinese or Japanese
    | (?:(?<![a1%$.)])-(?=\$?1))? \$?                # minus and currency before a number
      [a1]+ (?:(?:(?<=1)[,:](?=1)|['.&@](?=[a1]))[a1]+)*   # letters and digits; 1,234.5, 10:30, U.S, AT&T
      (?:(?<=\.a)\.)?                            # the last dot of U.S.
      (?:%|\$(?!1))*                             # percent, degrees; currency after a number
    """,
    re.VERBOSE,
)
# Where a straight or a German quote opens; elsewhere it closes.
_OPENING_QUOTE = re.compile(r'(?<![^ \n(!-])"(?![ \n])')
_KINDS = {
    **dict.fromkeys("\n\r\v\f\x85\u2028\u2029", "\n"),
    **dict.fromkeys(
        "'\u2018\u2019\u200c\u200d\u00ad\u00b7", "'"
    ),  # apostrophes, and what joins letters unseen
    **dict.fromkeys('"\u201c\u201d\u201e', '"'),
    **dict.fromkeys("%°\u2030+#", "%"),
    **dict.fromkeys("-\u2212", "-"),
    **{character: character for character in ".,:&@"},
    "_": "a",
}
_CATEGORIES = {"L": "a", "M": "a", "N": "1", "Z": " ", "Ps": "(", "Pe": ")", "Sc": "$"}
_END = -1  # stands in the tree of runs for "an answer may end here"

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
        self._special = frozenset(tokenizer.all_special_ids) - {eos_token_id}
        self._begin = [token for token in tokenizer("")["input_ids"][:1] if token in self._special]
        self._tree: Tree = {}
        runs = word_runs("\n".join(texts), max_words)
        inside = self._add_runs(runs, tokenizer) if getattr(tokenizer, "is_fast", False) else _cuts(runs)
        if inside:  # answers that end within a token of the run, or a tokenizer that tells no offsets
            for ids in tokenizer([f" {answer}" for answer in inside], add_special_tokens=False)["input_ids"]:
                self._add_answer(ids)

    def allowed(self, answer: Sequence[int]) -> list[int]:
        """Token ids that may follow what has been said so far.

        Args:
            answer: Token ids after the start token. Its first may be one that the generator begins all its
                answers with, as BART does.
        """
        node: Tree | None = self._tree
        if not len(answer):
            return [*self._tree, *self._begin] if self._tree else [self._eos]
        for place, token in enumerate(answer):
            if place == 0 and token in self._special and token not in self._tree:
                continue
            node = node.get(token) if node is not None else None
        if not node:
            return [self._eos]
        return [self._eos if token == _END else token for token in node]

    def _add_runs(self, runs: dict[str, set[int]], tokenizer: Any) -> list[str]:
        """Put runs into the tree; returns the answers that could not be told from where tokens end."""
        if not runs:
            return []
        encoded = tokenizer(
            [f" {run}" for run in runs],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        inside = []
        for (run, ends), ids, offsets in zip(
            runs.items(), encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            node, wanted = self._tree, {end + 1 for end in ends}
            # A character may be spread over several tokens: it has ended when another one begins.
            nexts = [start for start, _ in offsets[1:]] + [len(run) + 1]
            for token, (_, end), following in zip(ids, offsets, nexts, strict=True):
                node = node.setdefault(token, {})
                if end in wanted and following >= end:
                    node[_END] = {}
                    wanted.remove(end)
            inside += [run[: end - 1] for end in wanted]
        return inside

    def _add_answer(self, ids: list[int]) -> None:
        node = self._tree
        for token in ids:
            node = node.setdefault(token, {})
        if ids:
            node[_END] = {}


def word_runs(text: str, max_words: int) -> dict[str, set[int]]:
    """What begins at every word of a text: at most so many words, in one line.

    Args:
        text: A passage.
        max_words: The longest run, in words.

    Returns:
        Runs, and where in each an answer may end: behind a word, with no bracket or quote left open.
    """
    kinds = "".join(map(_kind, text))
    kinds = _OPENING_QUOTE.sub("(", kinds).replace('"', ")")
    # How many brackets and quotes are open before each character, and at the end.
    depth = list(accumulate((_STEPS.get(kind, 0) for kind in kinds), initial=0))
    words = [word.span() for word in _WORD.finditer(kinds)]
    runs: dict[str, set[int]] = {}
    for number, (begin, _) in enumerate(words):
        following = words[number : number + max_words]
        for start in (begin, begin - 1) if kinds[begin - 1 : begin] == "(" else (begin,):
            ends = [end - start for end in _ends(start, following, kinds, depth)]
            if ends:
                runs.setdefault(text[start : start + ends[-1]], set()).update(ends)
    return runs


def spans_only(spans: Sequence[PassageSpans]) -> Callable[[int, Tensor], list[int]]:
    """A ``prefix_allowed_tokens_fn`` for ``generate`` that holds question b to the runs of ``spans[b]``."""

    def allowed(batch_id: int, input_ids: Tensor) -> list[int]:
        return spans[batch_id].allowed(input_ids[1:].tolist())

    return allowed


_STEPS = {"(": 1, ")": -1}


def _ends(start: int, words: Iterable[tuple[int, int]], kinds: str, depth: list[int]) -> list[int]:
    """Where an answer that begins at ``start`` may end: behind words, in its line, with nothing open."""
    ends = []
    reached = start
    for begin, end in words:
        if "\n" in kinds[reached:begin] or min(depth[reached : begin + 1]) < depth[start]:
            break  # another line, or out of the bracket that the answer stands in
        reached = end
        while True:
            if depth[reached] == depth[start]:
                ends.append(reached)
            if kinds[reached : reached + 1] != ")" or depth[reached] == depth[start]:
                break
            reached += 1
    return ends


def _cuts(runs: dict[str, set[int]]) -> list[str]:
    """All answers one by one."""
    return list(dict.fromkeys(run[:end] for run, ends in runs.items() for end in ends))


@cache
def _kind(character: str) -> str:
    """One letter for what a character is: "a" letter, "1" digit, "c" Chinese or Japanese, " " space, ..."""
    kind = _KINDS.get(character)
    if kind is not None:
        return kind
    if character.isspace():
        return " "
    category = unicodedata.category(character)
    if category[0] == "L" and unicodedata.name(character, "").startswith(("CJK", "HIRAGANA", "KATAKANA")):
        return "c"
    return _CATEGORIES.get(category) or _CATEGORIES.get(category[0], "!")
