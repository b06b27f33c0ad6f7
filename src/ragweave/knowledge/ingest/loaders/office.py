"""Office documents, web pages and books through markitdown: one document per file.

The extra "readers" brings the library, so it is imported when the first such file is read.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ragweave.errors import SourceError, require_extra
from ragweave.knowledge.ingest.loaders.text import damaged_file, first_heading, title_from_name
from ragweave.knowledge.source_records import SourceFile
from ragweave.types import Document

# A file that unpacks to more than this, and to more than so many times its size, is meant to exhaust memory.
_UNPACKED_AT_MOST = 256 * 2**20
_UNPACKED_TIMES = 100
_PACKED = {".docx": "Docx", ".pptx": "Pptx", ".xlsx": "Xlsx", ".epub": "Epub"}
_SLIDE = re.compile(r"<!-- Slide number: \d+ -->\n?")


def read_office(file: SourceFile) -> Iterator[Document]:
    """Read a Word, PowerPoint, Excel or EPUB file or a web page as Markdown. Slides become pages.

    Raises:
        SourceError: The file is damaged, protected by a password, or unpacks to far more than its size.
        MissingExtraError: The extra "readers" is not installed.
    """
    require_extra("markitdown", "readers")
    from markitdown import StreamInfo, converters

    suffix = file.path.suffix.lower()
    if suffix in _PACKED:
        _check_unpacked_size(file.path)
    # The ending alone chooses the converter: markitdown's own choice reads as text whatever no other converter knows.
    converter = getattr(converters, f"{_PACKED.get(suffix, 'Html')}Converter")()
    try:
        with file.path.open("rb") as stream:
            result = converter.convert(stream, StreamInfo(extension=suffix))
    except Exception as error:  # converters let through whatever their libraries raise
        raise damaged_file(file.path, error) from error
    # Form feeds separate pages. Text before the first slide is a page of its own.
    first, *slides = _SLIDE.split(result.markdown)
    text = "\f".join(slides if slides and not first.strip() else [first, *slides])
    title = (result.title or first_heading(text) or title_from_name(file.name)).strip()
    yield Document(id=file.name, title=title, text=text, source=file.source)


def _check_unpacked_size(path: Path) -> None:
    """Refuse a file that is no archive, or that declares an enormous unpacked size."""
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(entry.file_size for entry in packed.infolist())
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise damaged_file(path, error) from error
    if unpacked > _UNPACKED_AT_MOST and unpacked > _UNPACKED_TIMES * path.stat().st_size:
        raise SourceError(
            f"The file {path} unpacks to {unpacked // 2**20} MiB, more than a hundred times its size: leave it out."
        )
