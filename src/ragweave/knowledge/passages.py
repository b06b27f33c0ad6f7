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
    """

    id: str
    title: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrievable piece of a document: the z of the paper.

    Attributes:
        id: The document's id plus ``#0``, ``#1``, ... in reading order.
        document_id: The document's id.
        title: The document's title.
        text: The passage's own text.
        source: Path or name of what the document was read from.
    """

    id: str
    document_id: str
    title: str
    text: str
    source: str
