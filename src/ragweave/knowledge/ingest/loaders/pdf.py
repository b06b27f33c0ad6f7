"""PDF files through pdfminer: one document a file, its pages parted by form feeds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from ragweave.errors import SourceError, require_extra
from ragweave.knowledge.ingest.loaders.office import unreadable
from ragweave.knowledge.ingest.loaders.plain import readable_title
from ragweave.knowledge.source_records import SourceFile
from ragweave.types import Document


def read_pdf(file: SourceFile) -> Iterator[Document]:
    """Read the text of a PDF file.

    Args:
        file: The file.

    Yields:
        Its one document, named by the file.

    Raises:
        SourceError: The file cannot be read, or has pages but no text.
        MissingExtraError: The extra "readers" is not installed.
    """
    require_extra("pdfminer", "readers")
    from pdfminer.high_level import extract_text

    try:
        text = extract_text(str(file.path))
    except Exception as error:  # everything that a damaged file makes its parser stumble over
        raise unreadable(file.path, error) from error
    if not text.strip():
        raise SourceError(
            f"The file {file.path} has no text: its pages are pictures. Recognise their text (with ocrmypdf, say) "
            "or leave it out."
        )
    yield Document(
        id=file.name,
        title=readable_title(PurePosixPath(file.name).stem),
        text=text,
        source=file.source,
    )
