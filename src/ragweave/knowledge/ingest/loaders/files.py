"""Which files there are to read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ragweave.errors import SourceError
from ragweave.knowledge.source_records import SourceFile


def find_files(sources: Sequence[Path], suffixes: frozenset[str]) -> list[SourceFile]:
    """List the readable files of all sources, those of a folder in sorted order.

    Args:
        sources: Files and folders.
        suffixes: The file endings that can be read, such as ``".txt"``.

    Returns:
        The files.

    Raises:
        SourceError: A source is missing, has no readable file, or is of a kind that cannot be read.
    """
    endings = ", ".join(sorted(suffixes))
    files: list[SourceFile] = []
    for source in sources:
        if source.is_dir():
            found = [file for file in _walk(source) if file.path.suffix.lower() in suffixes]
            if not found:
                raise SourceError(_nothing_in(source, endings))
            files.extend(found)
        elif not source.exists():
            raise SourceError(f"There is no file or folder {source}: check the path.")
        elif not source.is_file() or source.suffix.lower() not in suffixes:
            raise SourceError(f"The file {source} is of a kind that cannot be read: give one of {endings}.")
        else:
            files.append(SourceFile(path=source, name=source.name))
    for file in files:
        _check_name(file)
    return files


def _check_name(file: SourceFile) -> None:
    """Refuse a name that is not UTF-8, for names become identifiers."""
    try:
        str(file.path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise SourceError(f"The name of the file {str(file.path)!r} is not UTF-8: rename it.") from error


def _walk(folder: Path) -> Iterator[SourceFile]:
    """Yield every file below a folder, each folder once, however links lead back to it."""
    visited: set[tuple[int, int]] = set()
    # A stack, not recursion: folders may be nested deeper than Python recurses.
    stack: list[tuple[Path, str]] = [(folder, "")]
    while stack:
        path, name = stack.pop()
        try:
            if path.is_dir():
                status = path.stat()
                if (status.st_dev, status.st_ino) in visited:
                    continue
                visited.add((status.st_dev, status.st_ino))
                entries = sorted(entry for entry in os.listdir(path) if not entry.startswith("."))  # noqa: PTH208
                stack.extend(
                    (path / entry, f"{name}/{entry}" if name else entry) for entry in reversed(entries)
                )
            elif path.is_file() or (path.is_symlink() and not path.exists()):
                # A link to nothing is kept, so that its reader can say that the file is missing.
                yield SourceFile(path=path, name=name)
        except OSError as error:
            raise SourceError(
                f"The folder {path} cannot be read ({error.strerror}): check its permissions."
            ) from error


def _nothing_in(folder: Path, endings: str) -> str:
    if any(folder.iterdir()):
        return f"The folder {folder} has no file that can be read: put files ending in {endings} into it."
    return f"The folder {folder} is empty: put files ending in {endings} into it."
