"""Extractive decoding: answers are runs of whole words of a passage, or several of them joined.

A small generator without constraints paraphrases, repeats itself and does not stop. Restricted to the words of the
passages, it points at an answer instead.

An answer begins where a word begins and ends where a word ends. "1,234.5", "$5.2", "18%", "U.S." and "don't" are
words, and so is every Chinese or Japanese character; "well-known" and "km/h" are two words each. Punctuation around
an answer is not part of it, except for brackets and quotes that open and close within it: "the yen (JPY), a currency"
yields "JPY", "(JPY)" and "yen (JPY)", and never "yen (JPY".
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate
from typing import Any, NamedTuple

from torch import Tensor

# A word, in the classes of its characters; see `_character_class`.
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
_CLASSES = {
    **dict.fromkeys("\n\r\v\f\x85\u2028\u2029", "\n"),
    # apostrophes, and invisible characters that join letters
    **dict.fromkeys("'\u2018\u2019\u200c\u200d\u00ad\u00b7", "'"),
    **dict.fromkeys('"\u201c\u201d\u201e', '"'),
    **dict.fromkeys("%°\u2030+#", "%"),
    **dict.fromkeys("-\u2212", "-"),
    **{character: character for character in ".,:&@"},
    "_": "a",
}
_CATEGORIES = {"L": "a", "M": "a", "N": "1", "Z": " ", "Ps": "(", "Pe": ")", "Sc": "$"}
_DEPTH_CHANGES = {"(": 1, ")": -1}


class Run(NamedTuple):
    """A run of words, or a join between two runs.

    Attributes:
        ids: Its tokens.
        ends: After how many of them an answer may end.
    """

    ids: array[int]
    ends: array[int]


Runs = dict[int, list[Run]]
"""Runs by their first tokens."""


class PassageSpans:
    """All runs of whole words in some passages.

    Args:
        texts: The passages.
        tokenizer: The generator's tokenizer.
        eos_token_id: The token that ends an answer.
        max_words: The longest run, in words.
        joins: Texts allowed between two runs, such as "," and " and" in lists; none if empty.
        runs: Finds the runs of a text, in place of `runs_of`; a cached one saves most of the time if passages recur.
    """

    def __init__(
        self,
        texts: Sequence[str],
        tokenizer: Any,
        *,
        eos_token_id: int,
        max_words: int = 16,
        joins: Sequence[str] = (),
        runs: Callable[[str], Runs] | None = None,
    ) -> None:
        self._eos = eos_token_id
        self._special = frozenset(tokenizer.all_special_ids) - {eos_token_id}
        self._begin = [token for token in tokenizer("")["input_ids"][:1] if token in self._special]
        find = runs or partial(runs_of, tokenizer=tokenizer, max_words=max_words)
        self._runs = [text_runs for text in texts if (text_runs := find(text))]
        self._joins: Runs = {}
        self._adjoins = "" in joins
        for join in filter(None, joins):
            ids = array("I", tokenizer(join, add_special_tokens=False)["input_ids"])
            self._joins.setdefault(ids[0], []).append(Run(ids, array("I")))

    def allowed(self, answer: Sequence[int]) -> list[int]:
        """Token ids that may follow the beginning of an answer.

        Args:
            answer: Token ids after the start token. The first may be a special token with which the generator begins
                all its answers, as BART does.
        """
        if not len(answer):
            firsts = dict.fromkeys(token for runs in self._runs for token in runs)
            return [*firsts, *self._begin] if firsts else [self._eos]
        inside, fresh = self._runs_in(answer)
        following = dict.fromkeys(run.ids[count] for run, count in inside if count < len(run.ids))
        following |= dict.fromkeys(token for runs in fresh for token in runs)
        if _ended(inside):
            following[self._eos] = None
        return [*following] or [self._eos]

    def draft(self, answer: Sequence[int]) -> array[int]:
        """The continuation of the beginning of an answer at its first occurrence in the passages."""
        inside, _ = self._runs_in(answer)
        return next((run.ids[count:] for run, count in inside if count < len(run.ids)), array("I"))

    def _runs_in(self, answer: Sequence[int]) -> tuple[list[tuple[Run, int]], list[Runs]]:
        """The runs that an answer is in, with the number of their tokens so far, and those that may begin."""
        fresh = self._runs
        inside: list[tuple[Run, int]] = []
        for position, token in enumerate(answer):
            begun = [(run, 1) for runs in fresh for run in runs.get(token, ())]
            if position == 0 and token in self._special and not begun:
                continue
            inside = [
                (run, count + 1) for run, count in inside if count < len(run.ids) and run.ids[count] == token
            ] + begun
            fresh = self._fresh(inside)
        return inside, fresh

    def _fresh(self, inside: list[tuple[Run, int]]) -> list[Runs]:
        """The runs that may begin here: a join after a run, a run after a join."""
        fresh = []
        has_ended = _ended(inside)
        if has_ended and self._joins:
            fresh.append(self._joins)
        is_joined = any(not run.ends and count == len(run.ids) for run, count in inside)
        if is_joined or (has_ended and self._adjoins):
            fresh += self._runs
        return fresh


def _ended(inside: list[tuple[Run, int]]) -> bool:
    return any(count in run.ends for run, count in inside)


def runs_of(text: str, tokenizer: Any, max_words: int = 16) -> Runs:
    """The runs of whole words in a text, as tokens."""
    runs = word_runs(f"{text}\n", max_words)
    by_token: Runs = {}
    if getattr(tokenizer, "is_fast", False):
        separate = _add_runs(runs, tokenizer, by_token)
    else:  # every answer by itself
        separate = [*dict.fromkeys(run[:end] for run, ends in runs.items() for end in ends)]
    if separate:
        encoded = tokenizer([f" {answer}" for answer in separate], add_special_tokens=False)["input_ids"]
        for ids in filter(None, encoded):
            by_token.setdefault(ids[0], []).append(Run(array("I", ids), array("I", [len(ids)])))
    return by_token


def _add_runs(runs: dict[str, set[int]], tokenizer: Any, by_token: Runs) -> list[str]:
    """Add runs as tokens; return the answers that end inside a token, which have to be tokenized separately."""
    if not runs:
        return []
    encoded = tokenizer(
        [f" {run}" for run in runs],
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    separate = []
    for (run, ends), ids, offsets in zip(
        runs.items(), encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        open_ends, after = {end + 1 for end in ends}, array("I")
        # Several tokens may make up one character, which ends where the next token starts after it.
        starts = [start for start, _ in offsets[1:]] + [len(run) + 1]
        for number, ((_, end), next_start) in enumerate(zip(offsets, starts, strict=True), start=1):
            if end in open_ends and next_start >= end:
                after.append(number)
                open_ends.remove(end)
        if after:
            by_token.setdefault(ids[0], []).append(Run(array("I", ids[: after[-1]]), after))
        separate += [run[: end - 1] for end in open_ends]
    return separate


def word_runs(text: str, max_words: int) -> dict[str, set[int]]:
    """The runs of at most ``max_words`` words in one line, from every word of a text.

    Returns:
        The longest run from each word, and where answers may end in it: after a word, with no bracket or quote open.
    """
    classes = "".join(map(_character_class, text))
    classes = _OPENING_QUOTE.sub("(", classes).replace('"', ")")
    # How many brackets and quotes are open before each character, and at the end.
    depth = list(accumulate((_DEPTH_CHANGES.get(each, 0) for each in classes), initial=0))
    words = [word.span() for word in _WORD.finditer(classes)]
    runs: dict[str, set[int]] = {}
    for number, (begin, _) in enumerate(words):
        following = words[number : number + max_words]
        for start in (begin, begin - 1) if classes[begin - 1 : begin] == "(" else (begin,):
            ends = [end - start for end in _ends(start, following, classes, depth)]
            if ends:
                runs.setdefault(text[start : start + ends[-1]], set()).update(ends)
    return runs


@dataclass(frozen=True)
class SpansOnly:
    """A ``prefix_allowed_tokens_fn`` for ``generate`` that restricts question b to the runs of ``spans[b]``."""

    spans: Sequence[PassageSpans]

    def __call__(self, batch_id: int, input_ids: Tensor) -> list[int]:
        """The tokens that may follow the start token and those after it."""
        return self.spans[batch_id].allowed(input_ids[1:].tolist())

    def draft(self, batch_id: int, token_ids: Sequence[int]) -> array[int]:
        """A guess of the tokens that follow."""
        return self.spans[batch_id].draft(token_ids[1:])


def _ends(start: int, words: Iterable[tuple[int, int]], classes: str, depth: list[int]) -> list[int]:
    """Where an answer from ``start`` may end: after words, in its line, with no bracket or quote open."""
    ends = []
    position = start
    for begin, end in words:
        if "\n" in classes[position:begin] or min(depth[position : begin + 1]) < depth[start]:
            break  # another line, or outside the bracket that contains the answer
        position = end
        while True:
            if depth[position] == depth[start]:
                ends.append(position)
            if classes[position : position + 1] != ")" or depth[position] == depth[start]:
                break
            position += 1
    return ends


@cache
def _character_class(character: str) -> str:
    """One letter for a character: "a" letter, "1" digit, "c" Chinese or Japanese, " " space, ..."""
    if character in _CLASSES:
        return _CLASSES[character]
    if character.isspace():
        return " "
    category = unicodedata.category(character)
    if category[0] == "L" and unicodedata.name(character, "").startswith(("CJK", "HIRAGANA", "KATAKANA")):
        return "c"
    return _CATEGORIES.get(category) or _CATEGORIES.get(category[0], "!")
