"""Reading documents from files and folders, one document at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.columns import read_arrow, read_parquet
from ragweave.knowledge.ingest.loaders.files import SourceFile, find_files
from ragweave.knowledge.ingest.loaders.hub import find_on_hub, is_address
from ragweave.knowledge.ingest.loaders.jsonl import read_jsonl
from ragweave.knowledge.ingest.loaders.office import read_office
from ragweave.knowledge.ingest.loaders.pdf import read_pdf
from ragweave.knowledge.ingest.loaders.plain import read_plain
from ragweave.knowledge.ingest.loaders.table import read_table
from ragweave.types import Document

__all__ = ["READERS", "UniqueReader", "find_sources", "read_documents"]

READERS: dict[str, Callable[[SourceFile], Iterator[Document]]] = {
    ".txt": read_plain,
    ".md": read_plain,
    ".csv": read_table,
    ".tsv": read_table,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".pdf": read_pdf,
    **dict.fromkeys((".docx", ".pptx", ".xlsx", ".html", ".htm", ".epub"), read_office),
}
"""The reader of every file ending that is understood."""


def read_documents(sources: Sequence[Path]) -> Iterator[Document]:
    """Read the documents of files, and of folders with everything below them in sorted order.

    A text or Markdown file, a PDF, Word, PowerPoint, Excel or EPUB file and a web page is one document, whose id is
    its path below the folder that was given; every row of a ``.csv``, ``.tsv``, ``.parquet`` or ``.arrow`` file
    (columns ``title``, ``text``, perhaps ``id``) and every line of a ``.jsonl`` file (the same keys, or KILT's) is
    one. Files and folders whose names begin with a dot are passed over.

    Args:
        sources: Files and folders.

    Returns:
        The documents, read as they are asked for. The sources are looked up at once.

    Raises:
        SourceError: A source is missing, empty or cannot be read, or two documents have one id.

    Example:
        >>> [document.id for document in read_documents([Path("notes")])]
        ['2025/march.md', 'people.csv:2', 'people.csv:3']
    """
    files = find_sources(sources)
    reader = UniqueReader()
    return (document for file in files for document in reader.read(file))


def find_sources(sources: Sequence[Path | SourceFile]) -> list[SourceFile]:
    """List the files of sources, those of a folder in sorted order, each once.

    Data sets of the hub are downloaded, unless they are in the cache; a `SourceFile` is itself.

    Raises:
        SourceError: A source is missing, has no readable file, or is of a kind that cannot be read.
    """
    if not sources:
        raise SourceError("No source was given: name files or folders to read documents from.")
    files: dict[Path, SourceFile] = {}
    for source in sources:
        for file in _files_of(source):
            files.setdefault(file.path.resolve(), file)
    return list(files.values())


def _files_of(source: Path | SourceFile) -> list[SourceFile]:
    if isinstance(source, SourceFile):
        return [source]
    if is_address(source):
        return find_on_hub(source)
    return find_files(list(_expanded([source])), frozenset(READERS))


def _expanded(sources: Sequence[Path]) -> Iterator[Path]:
    """Sources with the files that patterns among them match; a path that exists is none."""
    for source in sources:
        if source.exists() or not has_magic(str(source)):
            yield source
        elif found := sorted(glob(str(source), recursive=True)):  # noqa: PTH207 (absolute patterns)
            yield from map(Path, found)
        else:
            raise SourceError(f"Nothing matches {source}: check the pattern.")


class UniqueReader:
    """Reads the documents of one file after the other, and refuses an id that comes twice."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def read(self, file: SourceFile) -> Iterator[Document]:
        """Read the documents of a file.

        Raises:
            SourceError: It cannot be read, changed while it was read, or has a document with the id of another.
        """
        before = _state(file)
        source = file.source
        for document in READERS[file.path.suffix.lower()](file):
            if document.id in self._seen:
                raise SourceError(
                    f"Two documents have the id '{document.id}': one in {self._seen[document.id]}, one in "
                    f"{source}. Rename one, or give the folder that holds both files as the source."
                )
            self._seen[document.id] = source
            yield document
        if _state(file) != before:
            raise SourceError(f"The file {source} changed while it was read: add it again when it is whole.")


def _state(file: SourceFile) -> tuple[int, int] | None:
    try:
        status = file.path.stat()
    except OSError:
        return None  # the reader will say what is wrong
    return status.st_size, status.st_mtime_ns
