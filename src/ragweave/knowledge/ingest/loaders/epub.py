"""EPUB books: the chapters in reading order, each once."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.html import parse_page
from ragweave.knowledge.ingest.loaders.package import Package, attribute, local_name, open_zip, target_of
from ragweave.knowledge.ingest.loaders.text import whole_file
from ragweave.types import Document, SourceFile

_PAGES = (".xhtml", ".html", ".htm")


def read_epub(file: SourceFile) -> Iterator[Document]:
    """Read a book as one document, titled by its metadata."""
    with open_zip(file.path) as content:
        book = Package(file, content)
        title, chapters = _contents(book)
        if not chapters:
            raise SourceError(
                f"The file {file.path} cannot be read: it lists no chapter, so it is damaged or not a book. Save it "
                "again, or leave it out."
            )
        encryption = book.xml("META-INF/encryption.xml", optional=True)
        protected = {attribute(e, "URI") for e in encryption.iter() if local_name(e) == "CipherReference"}
        for chapter in sorted(protected.intersection(chapters)):
            book.warn(f"its chapter {chapter} is encrypted.")
        texts = [parse_page(book.text(chapter)).text for chapter in chapters if chapter not in protected]
    text = "\n\n".join(filter(None, texts))
    yield whole_file(file, title, text, markdown=True)


def _contents(book: Package) -> tuple[str, list[str]]:
    container = book.xml("META-INF/container.xml", optional=True)
    listings = [attribute(element, "full-path") for element in container.iter()]
    listing = next((name for name in (*listings, *book.names) if name.endswith(".opf")), "")
    package = book.xml(listing, optional=True)
    title, items, spine = "", {}, []
    for element in package.iter():
        name = local_name(element)
        if name == "title" and not title:
            title = " ".join((element.text or "").split())
        elif name == "item":
            items[attribute(element, "id")] = target_of(listing, unquote(attribute(element, "href")))
        elif name == "itemref":
            spine.append(attribute(element, "idref"))
    for missing in sorted(set(spine) - set(items)):
        book.warn(f"its chapter {missing} is not in the list of its parts.")
    chapters = [items[key] for key in spine if key in items]
    if not chapters:
        chapters = [name for name in (items.values() or sorted(book.names)) if name.lower().endswith(_PAGES)]
    return title, list(dict.fromkeys(chapters))  # each once, however often it is named
