"""Text and Markdown files: one document each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from ragweave.knowledge.ingest.loaders.decoding import read_text
from ragweave.knowledge.source_records import SourceFile
from ragweave.types import Document

_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(?P<title>.*?\S)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(```|~~~)")


def read_plain(file: SourceFile) -> Iterator[Document]:
    """Read a text or Markdown file.

    Args:
        file: The file.

    Yields:
        Its one document, named by the first Markdown heading or else by the file's own name.

    Raises:
        SourceError: The file cannot be read, or is not UTF-8 text.
    """
    text = read_text(file.path)
    title = first_heading(text) if file.path.suffix.lower() == ".md" else None
    yield Document(
        id=file.name,
        title=title or readable_title(PurePosixPath(file.name).stem),
        text=text,
        source=file.source,
        line=1,
    )


def first_heading(markdown: str) -> str | None:
    """Find the first ``# heading`` outside of blocks of code; ``None`` if there is none."""
    in_code = False
    for line in markdown.split("\n"):
        if _FENCE.match(line):
            in_code = not in_code
        elif not in_code and (heading := _HEADING.match(line)):
            return heading["title"]
    return None


def readable_title(stem: str) -> str:
    """Make a title of a file's name: ``solar_power-plants`` becomes ``Solar power plants``."""
    # A hyphen between digits is part of a date or a number.
    words = " ".join(re.sub(r"_|(?<!\d)-|-(?!\d)", " ", stem).split())
    return (words[:1].upper() + words[1:]) or stem
