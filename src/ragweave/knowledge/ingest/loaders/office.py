"""Documents of office programs, web pages and electronic books, through markitdown: one document a file."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ragweave.errors import SourceError, require_extra
from ragweave.knowledge.ingest.loaders.plain import first_heading, readable_title
from ragweave.knowledge.source_records import SourceFile
from ragweave.types import Document

# A file that unpacks to more than this, and to more than so many times its size, is meant to fill the memory.
_UNPACKED_AT_MOST = 256 * 2**20
_UNPACKED_TIMES = 100
_PACKED = frozenset({".docx", ".pptx", ".xlsx", ".epub"})
_SLIDE = re.compile(r"<!-- Slide number: \d+ -->\n?")


def read_office(file: SourceFile) -> Iterator[Document]:
    """Read a Word, PowerPoint or Excel file, a web page or an EPUB. A slide is a page.

    Args:
        file: The file.

    Yields:
        Its one document, with headings, lists and tables as Markdown.

    Raises:
        SourceError: The file cannot be read: damaged, protected by a password, or unpacking beyond all measure.
        MissingExtraError: The extra "readers" is not installed.
    """
    require_extra("markitdown", "readers")
    from markitdown import StreamInfo

    suffix = file.path.suffix.lower()
    if suffix in _PACKED:
        _check_packed(file.path)
    try:
        # By its ending alone: markitdown's own choice takes for text what no other converter can read.
        with file.path.open("rb") as stream:
            found = _converter(suffix).convert(stream, StreamInfo(extension=suffix))
    except Exception as error:  # its converters let everything through that their libraries raise
        raise unreadable(file.path, error) from error
    first, *others = _SLIDE.split(found.markdown)
    text = "\f".join(others if others and not first.strip() else [first, *others])
    yield Document(
        id=file.name,
        title=(found.title or first_heading(text) or readable_title(PurePosixPath(file.name).stem)).strip(),
        text=text,
        source=file.source,
    )


def unreadable(path: Path, error: Exception) -> SourceError:
    """The error of a file that its library cannot read."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return SourceError(
        f"The file {path} cannot be read ({reason}): it is damaged, protected by a password, or not what its ending "
        "says. Save it anew, or leave it out."
    )


def _converter(suffix: str) -> Any:
    from markitdown import converters

    name = {".docx": "Docx", ".pptx": "Pptx", ".xlsx": "Xlsx", ".epub": "Epub"}.get(suffix, "Html")
    return getattr(converters, f"{name}Converter")()


def _check_packed(path: Path) -> None:
    """Look at whether a packed file is one, and how much it says that it unpacks to."""
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(entry.file_size for entry in packed.infolist())
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise unreadable(path, error) from error
    if unpacked > _UNPACKED_AT_MOST and unpacked > _UNPACKED_TIMES * path.stat().st_size:
        raise SourceError(
            f"The file {path} unpacks to {unpacked // 2**20} MiB, a hundred times its size and more: leave it out."
        )
