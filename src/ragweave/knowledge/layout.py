"""Where the parts of a saved knowledge base are, and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge import store

_VERSION = re.compile(r"\d{6,}")
_POINTER = re.compile(r"(?P<version>\d{6,}) (?P<checksum>[0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class PostingFiles:
    """Every path of the postings of a segment.

    Attributes:
        folder: The segment's folder.
    """

    folder: Path

    @property
    def words(self) -> Path:
        """The hashes of the words, rising: (W,)."""
        return self.folder / "words.npy"

    @property
    def starts(self) -> Path:
        """Where the postings of each word begin, and at last where they end: (W+1,)."""
        return self.folder / "word_starts.npy"

    @property
    def rows(self) -> Path:
        """The rows in which words occur, rising for each word: (P,)."""
        return self.folder / "word_rows.npy"

    @property
    def counts(self) -> Path:
        """How often they occur there: (P,)."""
        return self.folder / "word_counts.npy"

    @property
    def lengths(self) -> Path:
        """How many words each row has: (N,)."""
        return self.folder / "lengths.npy"

    @property
    def all(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.words, self.starts, self.rows, self.counts, self.lengths)


@dataclass(frozen=True, slots=True)
class SegmentLayout:
    """Every path of one segment: passages that were written together, and are never changed.

    Attributes:
        folder: The segment's folder.
    """

    folder: Path

    @property
    def passages(self) -> Path:
        """The passages, an Arrow IPC file."""
        return self.folder / "passages.arrow"

    @property
    def vectors(self) -> Path:
        """Their vectors, a numpy array of shape (N, D)."""
        return self.folder / "vectors.npy"

    @property
    def hashes(self) -> Path:
        """Their hashes, by which duplicates are found: a numpy array of shape (N,)."""
        return self.folder / "hashes.npy"

    @property
    def index(self) -> Path:
        """The FAISS index over the vectors, where they are not simply compared one by one."""
        return self.folder / "index.faiss"

    @property
    def postings(self) -> PostingFiles:
        """Which words occur where, unless it is searched by vectors alone."""
        return PostingFiles(self.folder)

    @property
    def data(self) -> tuple[Path, ...]:
        """All files that are there."""
        optional = (path for path in (self.index, *self.postings.all) if path.exists())
        return (self.passages, self.vectors, self.hashes, *optional)


@dataclass(frozen=True, slots=True)
class VersionLayout:
    """Every path of one version: which segments it is made of, and what of them it has deleted.

    Attributes:
        folder: The version's folder.
    """

    folder: Path

    @property
    def manifest(self) -> Path:
        """What the version holds, and how it was made."""
        return self.folder / "manifest.json"

    @property
    def deleted(self) -> Path:
        """Rows that are no longer there, rising: a numpy array."""
        return self.folder / "deleted.npy"

    @property
    def sources(self) -> Path:
        """What was read, with the hash of its content."""
        return self.folder / "sources.json"

    @property
    def data(self) -> tuple[Path, ...]:
        """All files but the manifest, which lists them."""
        return (self.deleted, self.sources)


@dataclass(frozen=True, slots=True)
class Pointer:
    """What is in force.

    Attributes:
        version: The version's name.
        checksum: Beginning of its manifest's checksum, so that a damaged pointer cannot pass for another version's.
    """

    version: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Every path of a saved knowledge base.

    Attributes:
        root: The knowledge base's folder.
    """

    root: Path

    @property
    def current(self) -> Path:
        """The pointer: a file with the name of the version that is in force."""
        return self.root / "CURRENT"

    @property
    def versions(self) -> Path:
        """The folder of all versions."""
        return self.root / "versions"

    @property
    def segments(self) -> Path:
        """The folder of all segments, which versions share."""
        return self.root / "segments"

    @property
    def lock(self) -> Path:
        """The file that a writer locks."""
        return self.root / ".writer.lock"

    @property
    def writer(self) -> Path:
        """Who the writer is."""
        return self.root / ".writer"

    @property
    def work(self) -> Path:
        """The folder in which a change is prepared."""
        return self.root / ".work"

    def version(self, name: str) -> VersionLayout:
        """The paths of one version."""
        return VersionLayout(self.versions / name)

    def segment(self, name: str) -> SegmentLayout:
        """The paths of one segment."""
        return SegmentLayout(self.segments / name)

    def version_names(self) -> list[str]:
        """The names of all versions that are there, the oldest first."""
        names = (path.name for path in self.versions.glob("*") if (path / "manifest.json").is_file())
        return sorted((name for name in names if _VERSION.fullmatch(name)), key=int)

    def is_knowledge_base(self) -> bool:
        """Whether there is a knowledge base here, whole or not."""
        return self.current.is_file() and self.versions.is_dir()

    def read_current(self) -> Pointer:
        """Read which version is in force.

        Raises:
            KnowledgeBaseError: There is no knowledge base here, or its pointer is damaged.
        """
        if not self.root.exists():
            raise KnowledgeBaseError(
                f"There is no knowledge base at {self.root}: check the path, or build one with "
                f"'ragweave index SOURCE --output {self.root}'."
            )
        if not self.is_knowledge_base():
            raise KnowledgeBaseError(
                f"{self.root} is not a knowledge base: give a folder that 'ragweave index' has made."
            )
        found = _POINTER.fullmatch(self.current.read_bytes().decode("ascii", errors="replace").strip())
        # The name becomes a part of a path: anything but digits could lead out of the folder.
        if found is None:
            raise KnowledgeBaseError(
                f"The pointer {self.current} is damaged: put a version in force with 'ragweave rollback {self.root} "
                "VERSION', or build the knowledge base again with --overwrite."
            )
        return Pointer(**found.groupdict())

    def next_version(self) -> str:
        """The name for a new version, above all that exist, whether they were ever in force or not."""
        everything = [*self.versions.glob("*"), *self.segments.glob("*")]
        taken = [int(path.name) for path in everything if _VERSION.fullmatch(path.name)]
        return f"{max(taken, default=0) + 1:06d}"

    def write_current(self, pointer: Pointer) -> None:
        """Point to a version, in one step: a reader sees the old pointer or the new one."""
        store.replace_text(self.current, f"{pointer.version} {pointer.checksum}\n")
