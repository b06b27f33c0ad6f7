"""Passages of Markdown, never across a heading, with the headings above them as their title."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from ragweave.knowledge.ingest.chunking.by_sentences import by_sentences
from ragweave.knowledge.ingest.chunking.cuts import Cut, overlapping

ENDINGS = (".md", ".markdown")
"""The endings of files that are Markdown."""


@dataclass(frozen=True, slots=True)
class _Section:
    """What stands between two headings.

    Attributes:
        path: The headings above it, from the highest on.
        heading: Where its own heading begins, in lines.
        start: Where its text begins.
        end: Where it ends.
    """

    path: tuple[str, ...]
    heading: int
    start: int
    end: int


def by_headings(text: str, title: str, words: int, overlap: int) -> Iterator[Cut]:
    """Cut Markdown at its headings, and what is long between them at the ends of sentences.

    A heading with neither text nor other headings below it is a passage by itself.

    Args:
        text: The text.
        title: The document's title, which comes first where no heading says the same.
        words: About how many words a passage has.
        overlap: How many words of the passage before each repeats, within a section.
    """
    places = _line_starts(text)
    sections = list(_sections(text, len(places) - 1))
    for number, section in enumerate(sections):
        path = section.path if section.path[:1] == (title,) else (title, *section.path)
        above = " > ".join(part for part in path if part)
        body = text[places[section.start] : places[section.end]]
        if body.strip():
            for cut in overlapping(body, by_sentences(body, words), overlap):
                yield cut.moved(places[section.start], above)
        elif section.path and not _has_below(sections, number):
            heading = text[places[section.heading] : places[section.start]].strip()
            start = text.index(heading, places[section.heading])
            yield Cut(start, start + len(heading), heading, above)


def _sections(text: str, lines: int) -> Iterator[_Section]:
    """The sections of a Markdown text, the first being what stands before all headings."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").parse(text)
    path: list[tuple[int, str]] = []
    heading = start = 0
    for token, inline in pairwise(tokens):
        # Those inside of quotations and lists belong to these.
        if token.type != "heading_open" or token.level or token.map is None:
            continue
        yield _Section(tuple(name for _, name in path), heading, start, token.map[0])
        depth = int(token.tag[1:])
        words = "".join(child.content for child in inline.children or () if child.type != "image")
        path = [*((level, name) for level, name in path if level < depth), (depth, " ".join(words.split()))]
        heading, start = token.map
    yield _Section(tuple(name for _, name in path), heading, start, lines)


def _has_below(sections: list[_Section], number: int) -> bool:
    """Whether the next section lies below this one."""
    following = sections[number + 1] if number + 1 < len(sections) else None
    path = sections[number].path
    return following is not None and len(following.path) > len(path) and following.path[: len(path)] == path


def _line_starts(text: str) -> list[int]:
    """Where each line begins, and at last where the text ends."""
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    starts[-1] = len(text)
    return starts
