"""Passages of at most so many tokens of the encoder, so that nothing of them is cut off when they are read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from ragweave.errors import ConfigurationError, SourceError
from ragweave.knowledge.chunking_settings import Tokenizes
from ragweave.knowledge.ingest.chunking.cuts import Cut, placed
from ragweave.knowledge.ingest.chunking.sentences import blocks


def by_tokens(text: str, title: str, tokenizer: Tokenizes, tokens: int | None, overlap: int) -> Iterator[Cut]:
    """Cut a text into pieces that have, with the title, at most so many tokens.

    A piece ends with a sentence where that leaves it more than half full, else between words.

    Args:
        text: The text.
        title: What the encoder reads before each piece.
        tokenizer: What knows the encoder's tokens.
        tokens: The most tokens; as many as the encoder reads where ``None`` or more than that.
        overlap: How many tokens of the piece before each repeats.

    Raises:
        ConfigurationError: The encoder reads any number of tokens, and none was given.
        SourceError: The title leaves no room for a text.
    """
    limit = _limit(tokenizer, tokens)
    if not text.strip():
        return
    room = limit - tokenizer.passage_token_count(title, "")
    if room < 1 or 2 * overlap > room:
        raise SourceError(
            f"The title {title[:60]!r} leaves {max(room, 0)} of {limit} tokens for a passage, of which {overlap} "
            "overlap: shorten it, or give a larger number of --tokens."
        )
    spans = [span for span in tokenizer.token_spans(text) if span[1] > span[0]]
    ends = [cut.end for cut in placed(text, (sentence for block in blocks(text) for sentence in block))]
    first = 0
    while first < len(spans):
        last = min(first + room, len(spans))
        # A piece alone may have more tokens than inside of the text, where its first word follows a space.
        while True:
            end = _end(text, spans, first, last, ends, room)
            piece = text[spans[first][0] : spans[end - 1][1]]
            if end - first == 1 or tokenizer.passage_token_count(title, piece) <= limit:
                break
            last = end - 1
        yield Cut(spans[first][0], spans[end - 1][1], piece)
        following = end - overlap if end < len(spans) else end
        first = max(following, first + 1)


def _limit(tokenizer: Tokenizes, tokens: int | None) -> int:
    limits = [limit for limit in (tokens, tokenizer.max_length) if limit is not None]
    if not limits:
        raise ConfigurationError(
            "This encoder reads texts of any length: say how many --tokens a passage has."
        )
    return min(limits)


def _end(text: str, spans: list[tuple[int, int]], first: int, last: int, ends: list[int], room: int) -> int:
    """The token that a piece ends before, at the latest ``last``."""
    if last == len(spans):
        return last
    bound = bisect_right(ends, spans[last - 1][1])
    if bound:
        sentence = bisect_right([end for _, end in spans[first:last]], ends[bound - 1]) + first
        if sentence - first > room // 2:
            return sentence
    word = last
    while word - first > max(room // 2, 1) and not _between_words(text, spans, word):
        word -= 1
    return word if _between_words(text, spans, word) else last


def _between_words(text: str, spans: list[tuple[int, int]], place: int) -> bool:
    """Whether there is white space before a token, or in it at its beginning."""
    start, before = spans[place][0], spans[place - 1][1]
    return start > before or text[start].isspace()
