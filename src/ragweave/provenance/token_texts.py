"""What each token adds to a text: tokens are parts of words, and sometimes parts of characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any


def token_texts(token_ids: Sequence[int], text: str, tokenizer: Any) -> list[str]:
    """Cut a decoded text where its tokens end.

    Args:
        token_ids: T token ids.
        text: What they are decoded to, without special tokens and without white space around it.
        tokenizer: What decoded them.

    Returns:
        T texts that make up ``text``. A character that several tokens spell is with the last of them.
    """
    beginnings = [token_ids[:count] for count in range(1, len(token_ids))]
    decoded = tokenizer.batch_decode(beginnings, skip_special_tokens=True) if beginnings else []
    ends = [0]
    for beginning in decoded:
        # Where the beginning ends inside of a character, its last characters are not those of the text.
        ends.append(max(ends[-1], common_length(beginning.lstrip(), text)))
    ends.append(len(text))
    return [text[start:end] for start, end in pairwise(ends)][: len(token_ids)]


def common_length(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
