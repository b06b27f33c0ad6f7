"""What a knowledge base was made from: files with hashes of their content, so that only changes are read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

from ragweave.errors import KnowledgeBaseError, SourceError
from ragweave.knowledge.manifest import FileRecord
from ragweave.knowledge.store import damaged


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read.

    Attributes:
        path: Where the file is.
        name: Its path below the source folder, with forward slashes; the file name for a file named directly.
        known_as: Its name as a source where that is not the path, such as an address on the hub.
    """

    path: Path
    name: str
    known_as: str | None = None

    @property
    def source(self) -> str:
        """The source that its passages carry."""
        return self.known_as or str(self.path)

    @property
    def key(self) -> str:
        """Its key among the sources of a knowledge base, independent of the working directory."""
        return self.known_as or str(self.path.resolve())


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One file that was read.

    Attributes:
        source: Its path as it was given, which its passages carry.
        sha256: Hash of its content.
    """

    source: str
    sha256: str


Sources = dict[str, SourceRecord]
"""Records by absolute path."""


def fingerprint(file: SourceFile) -> SourceRecord:
    """Read a file and hash it.

    Raises:
        SourceError: It cannot be read.
    """
    try:
        digest = FileRecord.of(file.path).sha256
    except OSError as error:
        raise SourceError(
            f"The file {file.path} cannot be read ({error.strerror}): check that it exists and its permissions."
        ) from error
    return SourceRecord(source=file.source, sha256=digest)


def to_json(sources: Sources) -> str:
    """Write sources as JSON."""
    return json.dumps({key: asdict(record) for key, record in sources.items()}, indent=1, ensure_ascii=False)


def read_sources(path: Path) -> Sources:
    """Read what `to_json` wrote.

    Raises:
        KnowledgeBaseError: The file is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
        return {str(key): SourceRecord(**record) for key, record in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise KnowledgeBaseError(damaged(path)) from error


def named_by(patterns: Sequence[str], sources: Sources, place: Path | str) -> set[str]:
    """The sources of a knowledge base that any of several paths or patterns names; see `matching`.

    Raises:
        KnowledgeBaseError: One of them names none.
    """
    given = sorted({record.source for record in sources.values()})
    chosen: set[str] = set()
    for pattern in patterns:
        found = matching(given, pattern)
        if not found:
            raise KnowledgeBaseError(
                f"Nothing in {place} was read from '{pattern}'; sources begin with {', '.join(given[:3])}."
            )
        chosen.update(found)
    return chosen


def matching(sources: Sequence[str], pattern: str) -> list[str]:
    """Those that are a path, lie below it, or match it as a glob pattern such as ``notes/*.md``."""
    folder = pattern.rstrip("/") + "/"
    resolved = str(Path(pattern).resolve())

    def fits(source: str) -> bool:
        return source == pattern or source.startswith(folder) or fnmatch(source, pattern) or same_file(source)

    def same_file(source: str) -> bool:
        own = str(Path(source).resolve())
        return own == resolved or own.startswith(f"{resolved}/")

    return [source for source in sources if fits(source)]
