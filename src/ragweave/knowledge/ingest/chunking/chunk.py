"""Documents to passages, as the settings say."""

from __future__ import annotations

from collections.abc import Iterator

from ragweave.errors import ConfigurationError
from ragweave.knowledge.chunking_settings import Chunking, Tokenizes
from ragweave.knowledge.ingest.chunking.by_headings import ENDINGS, by_headings
from ragweave.knowledge.ingest.chunking.by_sentences import by_sentences
from ragweave.knowledge.ingest.chunking.by_tokens import by_tokens
from ragweave.knowledge.ingest.chunking.by_words import by_words
from ragweave.knowledge.ingest.chunking.cuts import Cut, overlapping
from ragweave.types import Document, Passage


def chunk(
    document: Document, chunking: Chunking | None = None, *, tokenizer: Tokenizes | None = None
) -> list[Passage]:
    """Cut a document into passages that together hold all of it.

    Args:
        document: The document.
        chunking: How; about 100 words, at the ends of sentences, where left out.
        tokenizer: What knows the encoder's tokens, for passages of so many tokens.

    Returns:
        The passages in reading order; none for a document without text.

    Raises:
        ConfigurationError: Tokens are to be counted, and nobody knows them.
        SourceError: The document's title leaves no room for a text.

    Example:
        >>> document = Document("a.txt", "A", "One. Two.", "a.txt")
        >>> [passage.id for passage in chunk(document, Chunking(words=1))]
        ['a.txt#0', 'a.txt#1']
    """
    pages = "\f" in document.text
    passages, line, page, seen = [], document.line, 1, 0
    for number, cut in enumerate(_cuts(document, chunking or Chunking(), tokenizer)):
        line += document.text.count("\n", seen, cut.start) if line else 0
        page += document.text.count("\f", seen, cut.start)
        seen = cut.start
        passages.append(
            Passage(
                id=f"{document.id}#{number}",
                document_id=document.id,
                title=document.title if cut.title is None else cut.title,
                text=cut.text,
                source=document.source,
                start=cut.start,
                end=cut.end,
                line=line,
                page=page if pages else 0,
            )
        )
    return passages


def _cuts(document: Document, chunking: Chunking, tokenizer: Tokenizes | None) -> Iterator[Cut]:
    text, words, overlap = document.text, chunking.words, chunking.overlap
    if chunking.kind == "tokens":
        if tokenizer is None:
            raise ConfigurationError("Passages of so many tokens need the encoder that counts them.")
        return by_tokens(text, document.title, tokenizer, chunking.tokens, overlap)
    if chunking.kind == "words":
        return overlapping(text, by_words(text, words), overlap)
    if chunking.kind == "markdown" and document.source.lower().endswith(ENDINGS):
        return by_headings(text, document.title, words, overlap)
    return overlapping(text, by_sentences(text, words), overlap)
