"""PDF files, read by pdfium."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pypdfium2 import PdfiumError

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.pdf_layout import read_pages
from ragweave.knowledge.ingest.loaders.text import damaged_file, no_access, warn_loss, whole_file
from ragweave.types import Document, Place, SourceFile

_HYPHEN = re.compile(r"(?<![^\W\d_])(?P<head>[^\W\d_]+)[-\u2010\xad]\n(?P<tail>[^\W\d_]+)")
_WORD = re.compile(r"\w+(?:[-\u2010]\w+)*")
# What programs write if a document has no title: the name of its file, or a placeholder.
_NO_TITLE = re.compile(
    r".*\.(?:docx?|pptx?|xlsx?|od[pst]|rtf|txt|tex|dvi|ps|eps|pdf|indd|qxd|fm|html?)|untitled.*|document ?\d*|",
    re.IGNORECASE,
)


def read_pdf(file: SourceFile) -> Iterator[Document]:
    """Read the text of a PDF file, with form feeds between its pages."""
    try:
        file.path.open("rb").close()
        content = read_pages(str(file.path))
    except OSError as error:
        raise no_access(file.path, error) from error
    except (PdfiumError, ValueError) as error:
        raise damaged_file(file.path, error) from error
    pages: list[str] = content["pages"]
    if not any(pages):
        raise SourceError(
            f"The file {file.path} has no text: its pages are images. Recognise their text (for instance with "
            "ocrmypdf) or leave it out."
        )
    if numbers := content["scanned"]:
        warn_loss(
            file.name, f"{_pages(numbers)} no text (scanned?). Recognise it (for instance with ocrmypdf)."
        )
    if numbers := content["damaged"]:
        warn_loss(file.name, f"{_pages(numbers)} errors and cannot be read.")
    if (share := content["unmapped"]) > 0.01:
        warn_loss(
            file.name, f"{share:.0%} of the characters have no Unicode value in their fonts and are left out."
        )
    title = re.sub(r"^Microsoft \w+ - ", "", content["title"])
    title = content["heading"] if _NO_TITLE.fullmatch(title) else title
    yield whole_file(file, title, _join_hyphens("\f".join(pages)), place=Place(page=1))


def _pages(numbers: list[int]) -> str:
    """The start of a sentence about pages: "page 2 has", "pages 2, 5-7 have"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    names = ", ".join("-".join(map(str, ends)) for ends in ranges)
    return f"pages {names} have" if len(numbers) > 1 else f"page {names} has"


def _join_hyphens(text: str) -> str:
    """Join words that are hyphenated at the ends of lines, and keep the hyphens of compounds."""
    words = set(_WORD.findall(text.lower())) if _HYPHEN.search(text) else set()

    def join(match: re.Match[str]) -> str:
        head, tail = match["head"], match["tail"]
        compound = tail[0].isupper() and not (head.isupper() and tail.isupper())
        known = f"{head}-{tail}".lower() in words and (head + tail).lower() not in words
        return f"{head}-{tail}" if compound or known else head + tail

    return _HYPHEN.sub(join, text).replace("\xad", "")
