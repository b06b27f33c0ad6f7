"""Entry to the loaders: finds the files of sources, and reads documents from files of all formats."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from glob import glob, has_magic
from importlib import import_module
from pathlib import Path, PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ragweave.errors import MissingExtraError, RagweaveError, SourceError
from ragweave.knowledge.ingest.chunking import chunk
from ragweave.knowledge.ingest.loaders.reader_process import read_in_process, serve
from ragweave.knowledge.ingest.loaders.text import (
    TextBudget,
    damaged_file,
    is_text,
    no_access,
    printable,
    shortened,
    warn_loss,
)
from ragweave.knowledge.ingest_settings import DEFAULT_READING, Chunking, ReadSettings
from ragweave.knowledge.layout import Layout
from ragweave.types import Document, Passage, SourceFile

if TYPE_CHECKING:  # brings torch
    from ragweave.encoders.text_encoder import TextEncoder

_CODE = """.bash .bat .c .cc .cfg .clj .cmake .conf .cpp .cs .css .cxx .dart .erl .ex .exs .f90 .go .gradle .graphql
    .groovy .h .hh .hpp .hs .ini .java .jl .js .jsx .kt .lua .m .mjs .mk .ml .mm .pas .php .pl .pm .properties .proto
    .ps1 .py .pyi .r .rb .rs .scala .scss .sh .sql .swift .tf .toml .ts .tsx .vb .vue .yaml .yml .zsh""".split()  # noqa: SIM905
LOADERS = {
    **dict.fromkeys(("", ".txt", ".md", ".markdown", ".log"), "text.read_plain"),
    **dict.fromkeys((".rst", ".tex", ".org", ".srt", ".vtt"), "markup.read_markup"),
    ".ipynb": "notebooks.read_notebook",
    **dict.fromkeys((".csv", ".tsv"), "tables.read_table"),
    ".jsonl": "tables.read_jsonl",
    ".parquet": "tables.read_parquet",
    ".arrow": "tables.read_arrow",
    ".pdf": "pdf.read_pdf",
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html.read_html"),
    ".epub": "epub.read_epub",
    ".xlsx": "spreadsheets.read_spreadsheet",
    ".docx": "office.read_docx",
    ".pptx": "office.read_pptx",
    ".eml": "mail.read_mail",
    ".mbox": "mail.read_mbox",
    **dict.fromkeys((".zip", ".tar", ".tgz", ".tbz2", ".txz"), "archives.read_archive"),
    **dict.fromkeys((".tar.gz", ".tar.bz2", ".tar.xz"), "archives.read_archive"),
    **dict.fromkeys(_CODE, "code.read_code"),
}
"""The loader of each file ending, whose module is imported when the first such file is read.

Files without an ending are read if they are text, such as README and LICENSE.
"""

_WITH_ROWS = ("tables", "spreadsheets")
_CONTAINERS = ("archives", "mail")
# These readers take time and memory in proportion to the size of the file, so small files are read in this process,
# which saves starting another.
_HARMLESS = ("text.", "markup.", "notebooks.", "tables.read_table", "tables.read_jsonl")
_SMALL = 2**18
_LINK = "link out of the folder"
_ENDINGS = f"{', '.join(sorted(LOADERS.keys() - {'', *_CODE}))}, or source code"


def read_documents(
    sources: Sequence[Path | str | SourceFile], settings: ReadSettings = DEFAULT_READING
) -> Iterator[Document]:
    """Read the documents of files, and of folders with all their subfolders in sorted order, one at a time.

    A text, markup, notebook, PDF, Word, PowerPoint or EPUB file, a web page or an email is one document; its id is
    its path below the given folder. Every row of a table and every function of source code is a document, and files
    in archives are read as those in folders. Files of other kinds, and files and folders whose names start with a
    dot, are ignored. The sources are looked up at once; see `find_sources`.

    Raises:
        SourceError: A source is missing, empty or cannot be read, or two documents have the same id.

    Example:
        >>> [document.id for document in read_documents([Path("notes")])]
        ['2025/march.md', 'people.csv:2', 'people.csv:3']
    """
    files = find_sources(sources, follow_links=settings.follow_links)
    loader = DocumentLoader(settings)
    return (document for file in files if not file.ignored for document in loader.load(file))


def find_sources(
    sources: Sequence[Path | str | SourceFile], *, follow_links: bool = False, allow_empty: bool = False
) -> list[SourceFile]:
    """List the files of sources, those of a folder in sorted order, each once; some of a folder's are ignored.

    Sources are files, folders, glob patterns, and addresses of data sets on the hub, which are downloaded unless they
    are in the cache. Links that lead out of their folder are read with ``follow_links``, and else named in a
    `SourceWarning`. With ``allow_empty``, a folder may have no readable file.
    """
    if not sources:
        raise SourceError("No source was given: name files or folders to read documents from.")
    files: dict[Path, SourceFile] = {}
    for source in sources:
        for file in _files_of(source, follow_links, allow_empty):
            path = file.path.resolve()
            # A file that a folder ignores may be named by another source.
            if path not in files or (files[path].ignored and not file.ignored):
                files[path] = file
    return list(files.values())


class DocumentLoader:
    """Loads the documents of one file after the other, and refuses an id that occurs twice."""

    def __init__(self, settings: ReadSettings = DEFAULT_READING) -> None:
        self._settings = settings
        self._source_of: dict[str, str] = {}

    def load_passages(
        self, file: SourceFile, chunking: Chunking, tokenizer: TextEncoder
    ) -> Iterator[Passage]:
        """Load the passages of a file, cut in the process that reads it unless that needs the encoder's tokenizer."""
        if chunking.kind == "tokens":
            for document in self.load(file):
                yield from chunk(document, chunking, tokenizer=tokenizer)
        else:
            yield from self.load(file, chunking)

    def load(self, file: SourceFile, chunking: Chunking | None = None) -> Iterator[Any]:
        """Load the documents of a file, or its passages, in a child process unless it is harmless."""
        before = _size_and_time(file.path)
        is_small = before is None or before[0] <= _SMALL
        is_harmless = is_small and LOADERS[ending_of(file.path.name)].startswith(_HARMLESS)
        read = _read if is_harmless else read_in_process
        for item in read(file, self._settings, chunking):
            if chunking is None:
                self._check_id(item.id, file)
            elif item.id == f"{item.document_id}#0":
                self._check_id(item.document_id, file)
            yield item
        if _size_and_time(file.path) != before:
            raise SourceError(
                f"The file {file.source} changed while it was read: add it again when it is complete."
            )

    def _check_id(self, name: str, file: SourceFile) -> None:
        if name in self._source_of:
            raise SourceError(
                f"Two documents have the id '{name}': one in {self._source_of[name]}, one in "
                f"{file.source}. Rename one, or give the folder that holds both files as the source."
            )
        self._source_of[name] = file.source


def main() -> None:
    """Read files for another process; see `read_in_process`."""
    try:
        serve(_read)
    except BaseException:
        os._exit(2)  # 1 is the status after a timeout


def _read(file: SourceFile, settings: ReadSettings, chunking: Chunking | None) -> Iterator[Any]:
    """Read the documents of a file, or with a chunking its passages."""
    documents = read_file(file, settings)
    if chunking is None:
        return documents
    return (passage for document in documents for passage in chunk(document, chunking))


def read_file(file: SourceFile, settings: ReadSettings) -> Iterator[Document]:
    """Read the documents of a file in this process. An exception of its reader affects this file alone."""
    budget: TextBudget | None = None
    try:
        modified = datetime.fromtimestamp(int(file.path.stat().st_mtime), UTC)
    except OSError as error:
        raise no_access(file.path, error) from error
    try:
        time = {"modified": modified.strftime("%Y-%m-%dT%H:%M:%SZ")}
        kind = ending_of(file.path.name).lstrip(".")
        module, function = LOADERS[ending_of(file.path.name)].split(".")
        reader = getattr(_module(module, file), function)
        if module in _CONTAINERS:
            documents = reader(file, settings)
        else:
            documents = reader(file, settings.tables) if module in _WITH_ROWS else reader(file)
        for document in documents:
            budget = budget or TextBudget(file.path)
            budget.spend(len(document.title) + len(document.text))
            # A member of an archive was read from a copy, which has its file type but not its time.
            facts = time if module in _CONTAINERS else {}
            metadata = {**time, "type": kind, **document.metadata, **facts, **settings.metadata}
            yield replace(document, title=shortened(document.title), metadata=metadata)
    except (RagweaveError, MemoryError, Warning):
        raise
    except Exception as error:
        raise damaged_file(file.path, f"{type(error).__name__}: {error}") from error


def _module(name: str, file: SourceFile) -> ModuleType:
    try:
        return import_module(f"ragweave.knowledge.ingest.loaders.{name}")
    except ImportError as error:
        package = (error.name or "ragweave").partition(".")[0]
        raise MissingExtraError(
            f"The file {file.path} cannot be read: its reader needs the package '{package}', which is missing or "
            f"damaged ({error}). Run: pip install --force-reinstall {package}"
        ) from error


def ending_of(name: str) -> str:
    """The ending that determines the kind of a file, in lower case, such as ``.tar.gz``; empty for ``README``."""
    path = PurePath(name.lower())
    return "".join(path.suffixes[-2:]) if path.suffixes[-2:-1] == [".tar"] else path.suffix


def ignored_kind(path: Path) -> str:
    """The kind of a file that no loader reads; empty for a file to read."""
    ending = ending_of(path.name)
    is_read = ending in LOADERS if ending else is_text(path)
    return "" if is_read else ending or "without ending"


def is_container(path: Path) -> bool:
    """Whether a file is an archive or email, which contains other files."""
    return LOADERS[ending_of(path.name)].startswith(_CONTAINERS)


def _size_and_time(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # the loader reports what is wrong
    return status.st_size, status.st_mtime_ns


def is_pattern(path: Path) -> bool:
    """Whether a source is a pattern, and not a file or folder whose name looks like one."""
    return has_magic(str(path)) and not path.exists()


def _files_of(source: Path | str | SourceFile, follow_links: bool, allow_empty: bool) -> list[SourceFile]:
    if isinstance(source, SourceFile):
        return [source]
    if str(source).startswith("hf:/"):
        # Importing the datasets library takes a second, and most sources do not need it.
        from ragweave.knowledge.ingest.loaders.hub import find_on_hub

        return find_on_hub(str(source))
    path = Path(source)
    if not is_pattern(path):
        return _files_at(path, follow_links, allow_empty)
    matches = sorted(glob(str(path), recursive=True))  # noqa: PTH207 (absolute patterns)
    if not matches:
        raise SourceError(f"Nothing matches {path}: check the pattern.")
    return [file for match in matches for file in _files_at(Path(match), follow_links, allow_empty)]


def _files_at(path: Path, follow_links: bool, allow_empty: bool) -> list[SourceFile]:
    if path.is_dir():
        files = list(_walk(path, follow_links))
        if links := [file.name for file in files if file.ignored == _LINK]:
            names = f"{', '.join(links[:3])}{', ...' if len(links) > 3 else ''}"
            warn_loss(
                str(path), f"links that lead out of the folder are not followed: {names}. Add --follow-links."
            )
        if not allow_empty and all(file.ignored for file in files):
            state = "has no file that can be read" if any(path.iterdir()) else "is empty"
            raise SourceError(f"The folder {path} {state}: put files ending in {_ENDINGS} into it.")
        return files
    if not path.exists():
        raise SourceError(f"There is no file or folder {path}: check the path.")
    if not path.is_file() or ending_of(path.name) not in LOADERS:
        raise SourceError(f"The file {path} is of a kind that cannot be read: give one of {_ENDINGS}.")
    return [_source_file(path, path.name)]


def _source_file(path: Path, name: str, ignored: str = "") -> SourceFile:
    """A file, with escapes where its path is not UTF-8, because ids and names of sources are UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return SourceFile(path, printable(name), printable(str(path.resolve())), ignored)
    return SourceFile(path, name, ignored=ignored)


def _data_files(folder: Path) -> set[str]:
    """The files in a folder that hold the data set that was saved there; empty if none was."""
    try:
        state = json.loads((folder / "state.json").read_bytes()[:_SMALL])
        names = {str(file["filename"]) for file in state["_data_files"]}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return set()
    if outside := {name for name in names if name != PurePath(name).name or not name.endswith(".arrow")}:
        warn_loss(
            str(folder),
            f"state.json names {', '.join(sorted(outside))[:200]}, which is not an .arrow file of the folder.",
        )
    return names - outside


def _walk(folder: Path, follow_links: bool) -> Iterator[SourceFile]:
    """Yield every file below a folder, and visit each folder once even if links lead back to it.

    Ignored files are yielded as well, a hidden folder as one file.
    """
    root = folder.resolve()
    visited: set[tuple[int, int]] = set()
    # A stack, not recursion: folders may be nested deeper than Python recurses.
    stack: list[tuple[Path, str]] = [(folder, "")]
    while stack:
        path, name = stack.pop()
        try:
            if name.rpartition("/")[2].startswith("."):
                yield _source_file(path, name, "hidden")
            elif not follow_links and name and path.is_symlink() and not path.resolve().is_relative_to(root):
                yield _source_file(path, name, _LINK)
            elif path.is_dir():
                if Layout(path).is_knowledge_base():
                    yield _source_file(path, name, "knowledge base")
                    continue
                status = path.stat()
                if (status.st_dev, status.st_ino) in visited:
                    continue
                visited.add((status.st_dev, status.st_ino))
                entries = sorted(os.listdir(path), reverse=True)  # noqa: PTH208
                if "state.json" in entries:
                    data = _data_files(path)
                    unused = {entry for entry in entries if data and entry.endswith(".arrow")} - data
                    for entry in sorted(unused):
                        yield _source_file(path / entry, f"{name}/{entry}".lstrip("/"), "not in state.json")
                    entries = sorted({*entries, *data} - unused, reverse=True)
                stack.extend((path / entry, f"{name}/{entry}" if name else entry) for entry in entries)
            elif path.is_file() or not path.exists():
                # A broken link, or a missing part of a data set, is kept, so that its loader reports it.
                yield _source_file(path, name, ignored_kind(path))
            else:
                yield _source_file(path, name, "not a file")
        except OSError as error:
            raise SourceError(
                f"The folder {path} cannot be read ({error.strerror}): check its permissions."
            ) from error
