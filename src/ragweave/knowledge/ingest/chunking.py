"""Chunking: cuts documents into passages by words, sentences, encoder tokens or Markdown headings."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import regex
from markdown_it import MarkdownIt

from ragweave.errors import ConfigurationError, SourceError
from ragweave.knowledge.bm25 import UNSPACED
from ragweave.knowledge.ingest.loaders.text import MARKDOWN, parts
from ragweave.knowledge.ingest_settings import Chunking
from ragweave.types import Document, Passage

if TYPE_CHECKING:  # brings torch
    from ragweave.encoders.text_encoder import TextEncoder

# Words whose full stop does not end a sentence.
_ABBREVIATIONS = frozenset(
    """mr mrs ms dr prof st sr jr rev hon gov sen rep gen col lt sgt capt cmdr adm maj pres messrs
    vs cf eg ie e.g i.e viz al approx ca est no nos fig figs eq vol vols pp ed eds ch sec art cap
    jan feb mar apr jun jul aug sep sept oct nov dec mt ft inc ltd co corp bros dept univ
    bzw z.b d.h usw nr str""".split()  # noqa: SIM905
)
# Scripts without spaces between words, in which a space ends a clause: Thai, Lao, Myanmar and Khmer.
CLAUSE_SCRIPTS = r"\u0e01-\u0e3a\u0e40-\u0eff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f"
_ENDS = re.compile(
    rf"""(?<![.!?…؟۔।॥])(?P<mark>[.!?…؟۔।॥]++)["'”’»)\]]*\s+(?=["'“‘«(\[¿¡]*[^\W_a-zà-öø-ÿ])
      | [。！？။៕។]+["'”’」』）]*  # scripts without spaces
      | (?<=[{CLAUSE_SCRIPTS}])\s+(?=[{CLAUSE_SCRIPTS}])""",  # noqa: RUF001
    re.VERBOSE,  # a mark, a space and no lower-case letter; several marks are read once, from the first
)
_PARAGRAPHS = re.compile(r"\n[ \t\f\v]*\n\s*")
# Lines that start something new even if no sentence has ended: a heading, a list item, a table row, "Capital: Lima".
_NEW_ITEM = re.compile(r"[ \t]*(?:#{1,6} |[-*+•–] |\d{1,3}[.)] |\||>|[A-Z][\w /()'-]{0,40}: )")  # noqa: RUF001

# A word, or one character of a script without spaces between words; in scripts that write a syllable with several
# characters, five of these, never cut before a combining mark. A long run without a space (an address, encoded data)
# counts once per 40 characters, so that a passage never exceeds what an encoder reads.
_WORD = regex.compile(
    rf"[{UNSPACED}]|(?:[{CLAUSE_SCRIPTS}]\p{{M}}*+){{1,5}}|[^\s{UNSPACED}{CLAUSE_SCRIPTS}]{{1,40}}"
)
_TOLERANCE = 1.5


class _Span(NamedTuple):
    """A piece of a document."""

    start: int  # its first character in the document
    end: int  # the end of its last character
    text: str  # its text, which differs from the document's in white space alone
    title: str | None = None  # the title of the passage; ``None`` for the document's title


def chunk(
    document: Document, chunking: Chunking | None = None, *, tokenizer: TextEncoder | None = None
) -> list[Passage]:
    """Cut a document into passages that together hold all of its text, in reading order.

    Only passages of a number of tokens need the encoder, as the ``tokenizer``. A title that leaves no room for
    text is a `SourceError`.

    Example:
        >>> document = Document("a.txt", "A", "One. Two.", "a.txt")
        >>> [passage.id for passage in chunk(document, Chunking(words=1))]
        ['a.txt#0', 'a.txt#1']
    """
    rows = document.rows or ((0, document.place.row or 0),)
    place, has_pages = document.place, document.place.page is not None or "\f" in document.text
    starts, headings = _headings(document)
    metadata = json.dumps(document.metadata, ensure_ascii=False)
    passages, line, page, counted = [], document.line, place.slide or place.page or 1, 0
    for number, span in enumerate(_spans(document, chunking or Chunking(), tokenizer)):
        line += document.text.count("\n", counted, span.start) if line else 0
        page += document.text.count("\f", counted, span.start)
        counted = span.start
        passages.append(
            Passage(
                id=f"{document.id}#{number}",
                document_id=document.id,
                title=document.title if span.title is None else span.title,
                text=span.text,
                source=document.source,
                start=span.start,
                end=span.end,
                line=line or place.line or 0,
                page=page if has_pages and place.slide is None else 0,
                slide=page if place.slide is not None else 0,
                sheet=place.sheet or "",
                table_row=rows[bisect_right(rows, span.start, key=itemgetter(0)) - 1][1],
                heading="\n".join(headings[bisect_right(starts, span.start) - 1]),
                metadata=metadata,
            )
        )
    return passages


def _spans(document: Document, chunking: Chunking, tokenizer: TextEncoder | None) -> Iterator[_Span]:
    text, words, overlap = document.text, chunking.words, chunking.overlap
    if chunking.kind == "tokens":
        if tokenizer is None:
            raise ConfigurationError("Chunking by tokens needs the encoder's tokenizer: give tokenizer.")
        return _by_tokens(text, document.title, tokenizer, chunking.tokens, overlap)
    if chunking.kind == "words":
        return _overlapping(text, _by_words(text, words), overlap)
    if chunking.kind == "markdown" and (document.markdown or document.source.lower().endswith(MARKDOWN)):
        return _by_headings(text, document.title, words, overlap)
    spans = _by_sentences(text, words, keep_lines=document.keeps_lines)
    if document.keeps_lines:
        spans = (span._replace(text=_lines(text, span)) for span in spans)
    return _overlapping(text, spans, overlap)


def _lines(text: str, span: _Span) -> str:
    """The text of a span exactly as in the document, with the indentation of its first line."""
    start = text.rfind("\n", 0, span.start) + 1
    return text[span.start if text[start : span.start].strip() else start : span.end]


def _overlapping(document: str, spans: Iterable[_Span], words: int) -> Iterator[_Span]:
    """Extend each span backwards by the last words of the one before it, which may have been repeated themselves."""
    before: _Span | None = None
    for span in spans:
        extended = span
        if before is not None and words:
            repeated = list(_WORD.finditer(document, before.start, before.end))[-words:]
            start = repeated[0].start() if repeated else span.start
            text = " ".join(document[start : before.end].split())
            extended = span._replace(start=start, text=f"{text} {span.text}")
        yield extended
        before = extended


def _locate(document: str, texts: Iterable[str]) -> Iterator[_Span]:
    """Find consecutive texts in the document they were taken from, ignoring white space."""
    position = 0
    for text in texts:
        words = text.split()
        start = position = document.index(words[0], position)
        for word in [text] if document.startswith(text, start) else words:
            position = document.index(word, position) + len(word)
        yield _Span(start, position, text)


# --- Words and sentences ---


def _by_words(text: str, words: int) -> Iterator[_Span]:
    """Cut a text after every ``words`` words, as Lewis et al. 2020 cut Wikipedia; the last piece is shorter."""
    matches = _WORD.finditer(text)
    while piece := list(islice(matches, words)):
        start, end = piece[0].start(), piece[-1].end()
        yield _Span(start, end, " ".join(text[start:end].split()))


class _Piece(NamedTuple):
    """A sentence or a part of one, which is not cut further."""

    text: str
    words: int
    separator: str  # the text between it and the piece before


def _by_sentences(text: str, words: int, *, keep_lines: bool = False) -> Iterator[_Span]:
    """Cut a text at sentence ends (and line ends, with ``keep_lines``) into pieces of about ``words`` words.

    The pieces are about equally long: a text of 160 words becomes two of 80, not of 100 and 60. A piece
    of up to one and a half times the budget stays whole, and only a sentence longer than that is cut between its
    words.
    """
    for start, end in parts(text):
        part = text[start:end]
        pieces = list(_pieces(part.replace("\n", "\n\n") if keep_lines else part, words))
        for span in _locate(part, _pack(pieces, words)):
            yield span._replace(start=start + span.start, end=start + span.end)


def _pieces(text: str, words: int) -> Iterator[_Piece]:
    """Yield the sentences of a text, those over one and a half budgets in equal parts."""
    for sentences in blocks(text):
        separator = "\n"
        for sentence in sentences:
            count = _count_words(sentence)
            if count <= _TOLERANCE * words:
                yield _Piece(sentence, count, separator)
            else:
                matches, parts = list(_WORD.finditer(sentence)), -(-count // words)
                for first, end in pairwise(count * part // parts for part in range(parts + 1)):
                    part = sentence[matches[first].start() : matches[end - 1].end()]
                    yield _Piece(part, end - first, separator)
                    separator = " "
            separator = " "


def _count_words(sentence: str) -> int:
    words = sentence.split()  # ten times faster, and enough for most sentences
    return len(words if sentence.isascii() and max(map(len, words)) <= 40 else _WORD.findall(sentence))


def _pack(pieces: list[_Piece], words: int) -> Iterator[str]:
    """Join pieces to texts of about equal lengths."""
    left = sum(piece.words for piece in pieces)
    text, count, target = "", 0, _target(left, words)
    for piece in pieces:
        too_long = count + piece.words > _TOLERANCE * words
        # Stop where another piece would overshoot the target by more than stopping here misses it.
        if text and (too_long or count + piece.words - target > target - count):
            yield text
            left -= count
            text, count, target = "", 0, _target(left, words)
        text += piece.separator + piece.text if text else piece.text
        count += piece.words
    if text:
        yield text


def _target(left: int, words: int) -> float:
    """The length of the next text if all remaining ones are equally long."""
    return float("inf") if left <= _TOLERANCE * words else left / max(1, round(left / words))


# --- Tokens ---


def _by_tokens(
    text: str, title: str, tokenizer: TextEncoder, tokens: int | None, overlap: int
) -> Iterator[_Span]:
    """Cut a text into pieces of at most ``tokens`` tokens, title included, so that the encoder reads all of it.

    A piece ends with a sentence where that leaves it more than half full, else between words.
    """
    limit = min((size for size in (tokens, tokenizer.max_length) if size is not None), default=None)
    if limit is None:
        raise ConfigurationError(
            "This encoder reads texts of any length: set --tokens, the size of a passage."
        )
    if not text.strip():
        return
    room = limit - tokenizer.passage_token_count(title, "")
    if room < 1 or 2 * overlap > room:
        raise SourceError(
            f"The title {title[:60]!r} leaves {max(room, 0)} of {limit} tokens for a passage, of which {overlap} "
            "overlap. Shorten the title, or set a larger number of --tokens."
        )
    spans = [span for span in tokenizer.token_spans(text) if span[1] > span[0]]
    sentence_ends = [
        sentence.end for sentence in _locate(text, (sentence for block in blocks(text) for sentence in block))
    ]
    first = 0
    while first < len(spans):
        last = min(first + room, len(spans))
        # On its own a piece may have more tokens than within the text, where a space precedes its first word.
        while True:
            end = _piece_end(text, spans, first, last, sentence_ends, room)
            piece = text[spans[first][0] : spans[end - 1][1]]
            if end - first == 1 or tokenizer.passage_token_count(title, piece) <= limit:
                break
            last = end - 1
        yield _Span(spans[first][0], spans[end - 1][1], piece)
        following = end - overlap if end < len(spans) else end
        first = max(following, first + 1)


def _piece_end(
    text: str, spans: list[tuple[int, int]], first: int, last: int, sentence_ends: list[int], room: int
) -> int:
    """The token before which a piece ends, ``last`` at the latest."""
    if last == len(spans):
        return last
    bound = bisect_right(sentence_ends, spans[last - 1][1])
    if bound:
        sentence = bisect_right([end for _, end in spans[first:last]], sentence_ends[bound - 1]) + first
        if sentence - first > room // 2:
            return sentence
    word = last
    while word - first > max(room // 2, 1) and not _starts_word(text, spans, word):
        word -= 1
    return word if _starts_word(text, spans, word) else last


def _starts_word(text: str, spans: list[tuple[int, int]], position: int) -> bool:
    """Whether a token follows white space, or starts with it."""
    start, before = spans[position][0], spans[position - 1][1]
    return start > before or text[start].isspace()


# --- Markdown ---


# Headings alone are parsed within their lines, since the inlines of a whole document take most of the time.
_MARKDOWN, _INLINE = MarkdownIt("commonmark").disable("inline"), MarkdownIt("commonmark")


def _headings(document: Document) -> tuple[list[int], list[tuple[str, ...]]]:
    """Where the sections of a document start, and the headings above the text of each."""
    if not (document.markdown or document.source.lower().endswith(MARKDOWN)):
        return [0], [document.place.heading]
    sections = list(_sections(document.text))
    return [section.heading for section in sections], [section.path for section in sections]


class _Section(NamedTuple):
    """The text between two headings; positions are characters of the document."""

    path: tuple[str, ...]  # its heading and those above it, the highest first
    heading: int  # where its heading starts
    start: int
    end: int


def _by_headings(text: str, title: str, words: int, overlap: int) -> Iterator[_Span]:
    """Cut Markdown at its headings, and long sections at sentence ends; the title is the path of headings.

    A heading without text and without headings below it is a separate passage.
    """
    sections = list(_sections(text))
    for number, section in enumerate(sections):
        path = section.path if section.path[:1] == (title,) else (title, *section.path)
        heading_path = " > ".join(part for part in path if part)
        body = text[section.start : section.end]
        below = sections[number + 1].path if number + 1 < len(sections) else ()
        is_above = len(below) > len(section.path) and below[: len(section.path)] == section.path
        if body.strip():
            for span in _overlapping(body, _by_sentences(body, words), overlap):
                yield _Span(section.start + span.start, section.start + span.end, span.text, heading_path)
        elif section.path and not is_above:
            heading = text[section.heading : section.start].strip()
            start = text.index(heading, section.heading)
            yield _Span(start, start + len(heading), heading, heading_path)


def _sections(text: str) -> Iterator[_Section]:
    """Yield the sections of a Markdown text; the first is the text before all headings."""
    text = text.replace("\f", "\n")  # a slide may begin with a heading
    line_starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    line_starts[-1] = len(text)
    path: list[tuple[int, str]] = []
    heading = start = 0
    # The parser counts a lone carriage return as a line, which line_starts does not.
    tokens = _MARKDOWN.parse(text.replace("\r", " "))
    for token, inline in pairwise(tokens):
        # A heading inside a quotation or a list has a level above 0, and belongs to it.
        if token.type != "heading_open" or token.level or token.map is None:
            continue
        first, after = (line_starts[line] for line in token.map)
        yield _Section(tuple(name for _, name in path), heading, start, first)
        depth = int(token.tag[1:])
        children = _INLINE.parseInline(inline.content[:500])[0].children  # each passage has its headings
        words = "".join(child.content for child in children or () if child.type != "image")
        path = [*((level, name) for level, name in path if level < depth), (depth, " ".join(words.split()))]
        heading, start = first, after
    yield _Section(tuple(name for _, name in path), heading, start, len(text))


# --- Sentences, by rules for every language that ends them with punctuation ---


def blocks(text: str) -> Iterator[list[str]]:
    """Split a text into blocks of sentences: paragraphs, list items, headings and "Field: value" lines."""
    for paragraph in _PARAGRAPHS.split(text):
        for item in _items(paragraph):
            if sentences := list(_sentences(item)):
                yield sentences


def _items(paragraph: str) -> Iterator[str]:
    """Split a paragraph at the lines that start something new."""
    item: list[str] = []
    for line in paragraph.split("\n"):
        if item and (_NEW_ITEM.match(line) or (len(item) == 1 and _is_heading(item[0], line))):
            yield " ".join(item)
            item = []
        item.append(line)
    yield " ".join(item)


def _is_heading(line: str, following: str) -> bool:
    """Tell a heading from the first line of wrapped text."""
    line = line.strip()
    if line.startswith("#"):
        return True
    return len(line) < 60 and line[-1:].isalnum() and following.lstrip()[:1].isupper()


def _sentences(item: str) -> Iterator[str]:
    text, start = " ".join(item.split()), 0
    for end in _ENDS.finditer(text):
        if end["mark"] == "." and _is_abbreviation(text, start, end.start()):
            continue
        if sentence := text[start : end.end()].strip():
            yield sentence
        start = end.end()
    if rest := text[start:].strip():
        yield rest


def _is_abbreviation(text: str, start: int, end: int) -> bool:
    """Whether the full stop after this part of a text belongs to its last word."""
    # No abbreviation is longer than 40, but the sentence may be, and would be read again at each full stop.
    word = re.split(r"[\s(\[\"'“‘]", text[max(start, end - 40) : end])[-1]  # noqa: RUF001
    if word.lower() in _ABBREVIATIONS or re.fullmatch(r"(?:[^\W\d_]\.)*[^\W\d_]", word):
        return True  # "Dr", "e.g", "J", "U.S"
    # A number with nothing before it is the number of a list item: "1. Foo".
    return word.isdigit() and end - len(word) == start
