"""Where the parts of a saved knowledge base are, and nothing else."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ragweave.errors import KnowledgeBaseError

_VERSION = re.compile(r"\d{6,}")


@dataclass(frozen=True, slots=True)
class VersionLayout:
    """Every path of one version, which is never changed once it is complete.

    Attributes:
        folder: The version's folder.
    """

    folder: Path

    @property
    def manifest(self) -> Path:
        """What the version holds, and how it was made."""
        return self.folder / "manifest.json"

    @property
    def passages(self) -> Path:
        """The passages, an Arrow IPC file."""
        return self.folder / "passages.arrow"

    @property
    def vectors(self) -> Path:
        """Their vectors, a numpy array of shape (N, D)."""
        return self.folder / "vectors.npy"

    @property
    def index(self) -> Path:
        """The FAISS index over the vectors."""
        return self.folder / "index.faiss"

    @property
    def data(self) -> tuple[Path, ...]:
        """All files but the manifest, which lists them."""
        return (self.passages, self.vectors, self.index)


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

    def version(self, name: str) -> VersionLayout:
        """The paths of one version."""
        return VersionLayout(self.versions / name)

    def is_knowledge_base(self) -> bool:
        """Whether there is a knowledge base here, whole or not."""
        return self.current.is_file() and self.versions.is_dir()

    def read_current(self) -> str:
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
        name = self.current.read_bytes().decode("ascii", errors="replace").strip()
        # The name becomes a part of a path: anything but digits could lead out of the folder.
        if not _VERSION.fullmatch(name):
            raise KnowledgeBaseError(
                f"The pointer {self.current} is damaged: write the name of a folder in {self.versions} into "
                "it, or build the knowledge base again with --overwrite."
            )
        return name

    def next_version(self) -> str:
        """The name for a new version, above all that exist, whether they were ever in force or not."""
        taken = [int(path.name) for path in self.versions.glob("*") if _VERSION.fullmatch(path.name)]
        return f"{max(taken, default=0) + 1:06d}"

    def write_current(self, name: str) -> None:
        """Point to a version, in one step: a reader sees the old pointer or the new one.

        Args:
            name: The version's name.
        """
        temporary = self.root / f".CURRENT.{os.getpid()}"
        try:
            with temporary.open("w", encoding="ascii") as file:
                file.write(f"{name}\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.current)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(self.root)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power, where the system can."""
    if os.name == "nt":  # pragma: no cover
        return  # Windows does not open folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
