"""Archives: their files are read one after the other, each from a temporary copy, within limits.

Names of members never become paths: a copy keeps only the ending of its member's name.
"""

from __future__ import annotations

import shutil
import stat
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, NamedTuple, Self

from ragweave.errors import MissingExtraError, SourceError
from ragweave.knowledge.ingest.loaders.loader import ending_of, ignored_kind, is_container, read_file
from ragweave.knowledge.ingest.loaders.package import DAMAGED_PART, UNPACKED_AT_MOST, UNPACKED_TIMES, open_zip
from ragweave.knowledge.ingest.loaders.text import damaged_file, printable, warn_loss, warn_omission
from ragweave.knowledge.ingest_settings import ReadSettings
from ragweave.types import Document, SourceFile

_MEMBERS_AT_MOST = 100_000
_HEADER_AT_MOST = 2**20
_DEPTH_AT_MOST = 2
_LONG_HEADERS = b"LKxgX"  # their content, such as a long name, is read whole
_DAMAGED = (*DAMAGED_PART, tarfile.TarError)


class _LimitError(SourceError):
    """A limit on an archive, nested archives included, was exceeded."""


@dataclass(slots=True)
class _Budget:
    """What may still be unpacked, in bytes and files."""

    size: int
    members: int = _MEMBERS_AT_MOST


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member(SourceFile):
    """A copy of a file in an archive or email, with its depth of nesting and the budget of the outermost one."""

    depth: int
    budget: _Budget


class Entry(NamedTuple):
    """A member that is not unpacked yet; ``ignored`` says why it will not be."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]
    ignored: str = ""


class Unpacker:
    """Reads the members of an archive or email, in a ``with`` block that holds their copies."""

    def __init__(self, file: SourceFile, settings: ReadSettings) -> None:
        self._file, self._settings = file, settings
        self._ignored: Counter[str] = Counter()
        self._names: set[str] = set()
        self._depth, self._budget = 0, _Budget(UNPACKED_AT_MOST)
        if isinstance(file, _Member):
            self._depth, self._budget = file.depth, file.budget
        elif file.path.exists():  # the loader reports a missing file
            self._budget.size = max(UNPACKED_AT_MOST, UNPACKED_TIMES * file.path.stat().st_size)

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory(prefix="ragweave-")
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()
        if self._ignored:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self._ignored.most_common())
            warn_omission(self._file.name, f"{self._ignored.total()} files in it are ignored: {kinds}.")

    def documents(self, name: str, entry: Entry) -> Iterator[Document]:
        """The documents of a member, which are named ``name``; a warning if it cannot be read."""
        self._budget.members -= 1
        self._budget.size -= entry.size
        if self._budget.members < 0 or self._budget.size < 0:
            raise _LimitError(
                f"The file {self._file.source} unpacks to more than {UNPACKED_TIMES} times its size, or to more than "
                f"{_MEMBERS_AT_MOST:,} files: unpack it yourself, or leave it out."
            )
        ending = ending_of(name)
        path = Path(self._folder.name) / f"{self._budget.members}{ending}"
        if ignored := entry.ignored or (ending and ignored_kind(path)):
            self._ignored[ignored] += 1
            return
        try:
            yield from self._read(name, path, entry)
        except _LimitError:
            raise
        except (SourceError, MissingExtraError) as error:
            warn_loss(self._file.name, str(error).replace(str(path), name))
        except _DAMAGED as error:
            warn_loss(self._file.name, f"the file {name} in it is damaged ({error}).")
        finally:
            path.unlink(missing_ok=True)

    def _read(self, name: str, path: Path, entry: Entry) -> Iterator[Document]:
        if name in self._names:
            raise SourceError(f"There are two files {name} in it; only the first is read.")
        if self._depth == _DEPTH_AT_MOST and is_container(path):
            raise SourceError(
                f"The file {name} is nested in {_DEPTH_AT_MOST} other archives or emails and is ignored."
            )
        self._names.add(name)
        if stream := entry.open():
            with stream, path.open("wb") as copy:
                shutil.copyfileobj(stream, copy)
        if ignored := ignored_kind(path):
            self._ignored[ignored] += 1
            return
        member = _Member(path, name, self._file.source, depth=self._depth + 1, budget=self._budget)
        yield from read_file(member, self._settings)


def read_archive(file: SourceFile, settings: ReadSettings) -> Iterator[Document]:
    """Read the files in an archive; their names are the archive's name, a slash, and their path in it."""
    entries = _zip_entries(file.path) if ending_of(file.path.name) == ".zip" else _tar_entries(file.path)
    last = ""
    try:
        with Unpacker(file, settings) as unpacker:
            for entry in entries:
                yield from unpacker.documents(f"{file.name}/{entry.name}", entry)
                last = entry.name
    except _DAMAGED as error:
        if not last:
            raise damaged_file(file.path, error) from error
        warn_loss(file.name, f"it is damaged ({error}): nothing after {last} is read.")


def _zip_entries(path: Path) -> Iterator[Entry]:
    with open_zip(path) as content:
        for info in content.infolist():
            if info.is_dir():
                continue
            name = info.filename
            if not info.flag_bits & 0x800:  # not marked as UTF-8, which many programs forget
                with suppress(UnicodeError):
                    name = name.encode("cp437").decode("utf-8")
            reason = "links" if stat.S_ISLNK(info.external_attr >> 16) else ""
            reason = reason or ("encrypted" if info.flag_bits & 1 else "")
            yield _entry(name, info.file_size, partial(content.open, info), reason)


class _Header(tarfile.TarInfo):
    """A header of limited length; a damaged one is an error, not the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not buf.strip(b"\0"):  # the end
                raise
            raise tarfile.ReadError(str(error)) from error
        if header.type in _LONG_HEADERS and header.size > _HEADER_AT_MOST:
            raise tarfile.ReadError("a header is enormous")
        return header


def _tar_entries(path: Path) -> Iterator[Entry]:
    # As a stream, so that a compressed file is never read again from its start.
    with tarfile.open(path, "r|*", tarinfo=_Header) as content:
        for info in content:
            vars(content)["members"].clear()  # TarFile would remember every member
            if not info.isdir():
                reason = "" if info.isreg() else "devices" if info.isdev() else "links"
                yield _entry(info.name, info.size, partial(content.extractfile, info), reason)


def _entry(name: str, size: int, open_: Callable[[], IO[bytes] | None], reason: str) -> Entry:
    """A member by its path in the archive, which cannot lead out of it."""
    parts = [part for part in printable(name).replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        reason = "hidden"
    return Entry("/".join(parts), size, open_, reason)
