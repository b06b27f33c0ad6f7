"""Office documents through markitdown: one document per file.

The extra "readers" brings the library, so it is imported when the first such file is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ragweave.errors import require_extra
from ragweave.knowledge.ingest.loaders.package import open_zip
from ragweave.knowledge.ingest.loaders.text import damaged_file, first_heading, title_from_name
from ragweave.knowledge.source_records import SourceFile
from ragweave.types import Document

_CONVERTERS = {".docx": "Docx", ".pptx": "Pptx"}
_SLIDE = re.compile(r"<!-- Slide number: \d+ -->\n?")


def read_office(file: SourceFile) -> Iterator[Document]:
    """Read a Word or PowerPoint file as Markdown. Slides become pages.

    Raises:
        SourceError: The file is damaged, protected by a password, or unpacks to far more than its size.
        MissingExtraError: The extra "readers" is not installed.
    """
    require_extra("markitdown", "readers")
    from markitdown import StreamInfo, converters

    suffix = file.path.suffix.lower()
    open_zip(file.path).close()  # refuses a file that is no archive, or that unpacks to too much
    # The ending alone chooses the converter: markitdown's own choice reads as text whatever no other converter knows.
    converter = getattr(converters, f"{_CONVERTERS[suffix]}Converter")()
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
