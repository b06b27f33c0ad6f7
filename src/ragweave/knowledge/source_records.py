"""The sources of a knowledge base: files with the hashes of their content, so that only changes are read again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ragweave.knowledge.store import damaged


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read.

    Attributes:
        path: Where the file is.
        name: Its path below the source folder, with forward slashes; the file name for a file named directly.
        known_as: Its name as a source if that is not the path, such as an address on the hub.
        ignored: Why it is not read: its ending, which no loader reads, or ``"hidden"``; empty for a file to read.
    """

    path: Path
    name: str
    known_as: str | None = None
    ignored: str = ""

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
        source: Its path as the user named it, which its passages carry.
        sha256: The hash of its content.
    """

    source: str
    sha256: str


@dataclass(frozen=True, slots=True)
class SourceChanges:
    """How files differ from what a knowledge base was made from.

    Attributes:
        new: Sources that it does not have.
        changed: Sources that it has with other content.
        removed: Sources that no longer exist.
        skipped: One sentence for each file that cannot be read.
    """

    new: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    skipped: tuple[str, ...]


Sources = dict[str, SourceRecord]
"""Records by `SourceFile.key`."""


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
        raise damaged(path, error) from error
