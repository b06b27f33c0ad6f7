"""What a knowledge base is made of: documents as they were read, and the passages cut from them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One document as a reader returned it, before it is cut into passages.

    Attributes:
        id: Identifier, unique in a knowledge base.
        title: Title that every passage of the document keeps; may be empty.
        text: The whole text.
        source: Path or name of what it was read from.
        line: The line of the source that the text begins in, from 1 on; 0 where lines mean nothing.
    """

    id: str
    title: str
    text: str
    source: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrievable piece of a document: the z of the paper.

    Attributes:
        id: The document's id plus ``#0``, ``#1``, ... in reading order.
        document_id: The document's id.
        title: The document's title.
        text: The passage's own text.
        source: Path or name of what the document was read from.
        start: Where it begins in the document's text, in characters.
        end: Where it ends there.
        line: The line of the source that it begins in, from 1 on; 0 where lines mean nothing.
        page: The page of the source that it begins on, from 1 on; 0 where there are no pages.
    """

    id: str
    document_id: str
    title: str
    text: str
    source: str
    start: int = 0
    end: int = 0
    line: int = 0
    page: int = 0
