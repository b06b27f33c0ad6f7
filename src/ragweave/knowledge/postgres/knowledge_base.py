"""The knowledge base in a database.

Notation used for tensor shapes: B questions, K passages per question.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.engines import Engine, LocalEngine
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.postgres import changes
from ragweave.knowledge.postgres.opening import database_at
from ragweave.knowledge.postgres.protocol import Database, State
from ragweave.knowledge.postgres.reader import DatabaseReader
from ragweave.knowledge.progress import NoProgress, Progress

if TYPE_CHECKING:
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.source_records import SourceFile


class DatabaseKnowledgeBase(KnowledgeBase):
    """A knowledge base whose passages are in a database; open it with `KnowledgeBase.open` and a URI.

    It answers from what the database holds when it is asked. ``version`` and ``manifest`` are those of the time when
    it was opened; `latest` brings them up to date.

    Args:
        database: The place in the database.
        state: What is there.
    """

    def __init__(self, database: Database, state: State) -> None:
        # Not the constructor of a folder's: that maps files into memory.
        self.database = database
        self.path = database.place
        self.version = f"{state.version:06}"
        self.manifest = state.manifest
        self._reader = DatabaseReader(database, state.manifest)

    @classmethod
    def open(
        cls, path: Path | str, *, encoder: TextEncoder | None = None, version: str | None = None
    ) -> DatabaseKnowledgeBase:
        """Connect to a database and open the knowledge base in it.

        Args:
            path: The URI.
            encoder: The encoder of the questions, to be compared with the one that embedded the passages.
            version: None but the one that is there.

        Returns:
            The knowledge base.

        Raises:
            KnowledgeBaseError: There is none, or the database cannot be reached, or has not this version.
            EncoderMismatchError: The passages were embedded by another encoder.
        """
        base = cls._of(database_at(str(path)))
        if version not in (None, base.version):
            base._no_versions()
        if encoder is not None:
            base.check_encoder(encoder)
        return base

    @classmethod
    def _of(cls, database: Database) -> DatabaseKnowledgeBase:
        return cls(database, changes.existing(database, database.state()))

    def latest(self) -> DatabaseKnowledgeBase:
        """The knowledge base as it is now: this one, or another where it has changed since.

        Raises:
            KnowledgeBaseError: It is gone, or the database cannot be reached.
        """
        latest = self._of(self.database)
        return self if latest.version == self.version else latest

    def add(
        self,
        sources: Sequence[Path | str | SourceFile],
        *,
        encoder: TextEncoder,
        strict: bool = False,
        engine: Engine | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> DatabaseKnowledgeBase:
        """Add sources; see `KnowledgeBase.add`. An addition that was interrupted begins anew."""
        from ragweave.knowledge.ingest.loaders.loader import find_sources

        self.check_encoder(encoder)
        changes.add(
            self.database,
            find_sources([Path(own) if isinstance(own, str) else own for own in sources]),
            encoder=encoder,
            strict=strict,
            engine=engine or LocalEngine(),
            resume=resume,
            progress=progress or NoProgress(),
        )
        return self.latest()

    def delete(self, *, ids: Sequence[str] = (), sources: Sequence[str] = ()) -> DatabaseKnowledgeBase:
        """Delete passages; see `KnowledgeBase.delete`."""
        if not ids and not sources:
            raise ConfigurationError("Nothing to delete was named: give ids or sources.")
        changes.delete(self.database, ids=ids, sources=sources)
        return self.latest()

    def compact(self, *, keep: int = 1, progress: Progress | None = None) -> DatabaseKnowledgeBase:
        """Give back the room of what was deleted, and index by what there is now.

        Args:
            keep: Of no account: there are no old versions.
            progress: Hears how far it is.

        Returns:
            The knowledge base.

        Raises:
            KnowledgeBaseError: Another process is changing it, or the database cannot be reached.
        """
        changes.compact(self.database, progress=progress or NoProgress())
        return self.latest()

    def reembed(self, output: Path | str, **_options: Any) -> NoReturn:
        """Fail: passages of a database are embedded anew from their sources.

        Raises:
            KnowledgeBaseError: Always.
        """
        raise KnowledgeBaseError(
            f"{self.path} is a database: embed its sources anew with 'ragweave index SOURCE --model ENCODER'."
        )

    def swap(self, version: str) -> NoReturn:
        """Fail: there are no versions to choose among.

        Raises:
            KnowledgeBaseError: Always.
        """
        self._no_versions()

    def versions(self) -> list[Manifest]:
        """Fail: there are no versions to list.

        Raises:
            KnowledgeBaseError: Always.
        """
        self._no_versions()

    def version_names(self) -> list[str]:
        """Fail: there are no versions to list.

        Raises:
            KnowledgeBaseError: Always.
        """
        self._no_versions()

    def verify(self) -> None:
        """Fail: a database checks its own files.

        Raises:
            KnowledgeBaseError: Always.
        """
        raise KnowledgeBaseError(
            f"{self.path} is a database, whose files ragweave cannot check: use the database's own tools."
        )

    def info(self) -> dict[str, Any]:
        """Describe the knowledge base in values that JSON can hold."""
        factory = self.manifest.segments[0].factory
        return {**super().info(), "factory": factory, "bytes": self.database.bytes()}

    def close(self) -> None:
        """Close the connection to the database; using the knowledge base again opens another."""
        self.database.close()

    def _no_versions(self) -> NoReturn:
        raise KnowledgeBaseError(
            f"{self.path} is a database, which keeps no versions: it holds what was written last. Back it up with "
            "its own tools, or keep the knowledge base in a folder."
        )
