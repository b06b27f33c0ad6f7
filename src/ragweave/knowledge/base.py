"""The knowledge base: passages, their vectors and an index, in a folder of immutable versions or in PostgreSQL.

Notation used for tensor shapes: B questions, K passages per question, M rows, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ragweave.errors import ConfigurationError
from ragweave.knowledge.base_reader import KnowledgeBaseReader
from ragweave.knowledge.bm25 import NO_LANGUAGE, Analyzer
from ragweave.knowledge.hub import PATTERNS, push
from ragweave.knowledge.ingest_settings import (
    DEFAULT_READING,
    ChangeOptions,
    Chunking,
    IngestSettings,
    ReadSettings,
)
from ragweave.knowledge.layout import Layout, MilvusUri, location_of, verify_folder
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.snapshot import Snapshot
from ragweave.knowledge.storage import folder_writer, needs_folder, open_storage, writer_at
from ragweave.retrieval.data_files import hub_snapshot
from ragweave.types import NoProgress, Progress, SourceChanges, SourceFile

if TYPE_CHECKING:  # the encoder brings torch, and the write side brings loaders and chunking
    from ragweave.encoders.sparse_encoder import SparseEncoder
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.ingest.builder import Engine


class KnowledgeBase(KnowledgeBaseReader):
    """One version of a knowledge base, open for reading. Create one with `build` or `open`.

    A version in a folder never changes: a reader keeps the version it opened, regardless of later changes. In
    PostgreSQL, a search sees the latest commit; ``version`` and ``manifest`` are those of the time of opening.
    Methods that change a knowledge base return its new version; they raise `KnowledgeBaseError` if another process
    is changing it, or it cannot be written.

    Attributes:
        path: The folder, or the URI without a password.
        version: The version's name.
        manifest: What the version holds, and how it was made.

    Example:
        >>> base = KnowledgeBase.build([Path("notes")], Path("kb"), encoder=encoder)
        >>> base.search("Where is Lima?", 5)[0].title
        'Peru'
    """

    @classmethod
    def build(
        cls,
        sources: Sequence[Path | str | SourceFile],
        output: Path | str,
        *,
        encoder: TextEncoder,
        chunking: Chunking | None = None,
        index: str = "auto",
        parameters: dict[str, int] | None = None,
        language: str | None = "english",
        sparse: SparseEncoder | None = None,
        overwrite: bool = False,
        strict: bool = False,
        engine: Engine | None = None,
        reading: ReadSettings = DEFAULT_READING,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> KnowledgeBase:
        """Build a knowledge base from files and folders, and open it.

        The output appears, or gets its new version, when everything is written. Passages with the same title and text
        are stored once, and kept as long as any source contains them.

        Args:
            sources: Files and folders of the kinds that `read_documents` lists; data sets of the hub,
                ``hf://datasets/NAME@REVISION,CONFIGURATION:SPLIT``.
            output: The folder to create, or the URI of a database, ``postgresql://user@host/db?table=kb``.
            encoder: Embeds the passages, and later the questions.
            chunking: How to split documents into passages; by default about 100 words, at sentence ends.
            index: The index of the vectors: ``"flat"``, ``"hnsw"``, ``"ivfpq"``, ``"sq8"``, ``"binary"``, a FAISS
                factory string, or ``"auto"``, which is flat up to 100,000 passages (20,000 in PostgreSQL) and HNSW
                above, if that finds 95 % of the 100 nearest passages.
            parameters: Settings of the index, such as ``{"nprobe": 16}`` or ``{"efSearch": 64}``.
            language: The language whose stemmer BM25 uses; ``"none"`` to compare words as they are, ``None`` for
                search by vectors alone.
            sparse: Weighs words, in place of BM25 and ``language``; only in folders.
            overwrite: Replace the content of an existing knowledge base by a new version; older versions remain.
            strict: Fail if a source, or a part of one, cannot be read. By default, a source is skipped, and
                ``manifest.change`` says why; a part is left out with a `SourceWarning`.
            engine: Embeds the passages, such as `RayEngine`; by default in this process.
            reading: How files are read, and how much memory and time each may take; a file that takes more is
                skipped.
            resume: Continue an interrupted build of the same sources and settings.
            progress: Receives the progress.

        Raises:
            KnowledgeBaseError: The output exists, is in use, or cannot be written.
            SourceError: A source is missing, or none can be read.
            ConfigurationError: There is no such index, setting or stemmer.
        """
        if sparse is not None:
            language = NO_LANGUAGE
        if language is not None:
            Analyzer(language)  # fails before any work
        writer_at(location_of(output)).build(
            _paths(sources),
            encoder=encoder,
            settings=IngestSettings(chunking or Chunking(), index, parameters or {}, language, sparse),
            options=ChangeOptions(strict, engine, reading, resume, progress or NoProgress()),
            overwrite=overwrite,
        )
        return cls.open(output, encoder=encoder)

    @classmethod
    def open(
        cls, path: Path | str, *, encoder: TextEncoder | None = None, version: str | None = None
    ) -> KnowledgeBase:
        """Open the current version, or another one by its name, from a folder or the URI of a database.

        Raises:
            KnowledgeBaseError: This is not a knowledge base, or it is damaged, or its format is unknown.
            EncoderMismatchError: The passages were not embedded with ``encoder``, which embeds the questions.
        """
        location = location_of(path)
        storage = open_storage(location, version if isinstance(location, Path) else None)
        if version not in (None, storage.version):
            raise needs_folder(location, "open another version")
        base = cls(storage)
        if encoder is not None:
            base.check_encoder(encoder)
            base._encoder = encoder
        return base

    def latest(self) -> KnowledgeBase:
        """Open the current version; returns this object if it is current."""
        latest = self.storage.latest()
        return self if latest is self.storage else type(self)(latest)

    def add(
        self,
        sources: Sequence[Path | str | SourceFile],
        *,
        encoder: TextEncoder | Callable[[], TextEncoder],
        strict: bool = False,
        engine: Engine | None = None,
        reading: ReadSettings = DEFAULT_READING,
        resume: bool = False,
        remove_missing: bool = False,
        progress: Progress | None = None,
    ) -> KnowledgeBase:
        """Add sources. Changed sources replace their old passages; unchanged ones are not read again.

        Passages deleted from an unchanged source stay deleted. If nothing changes, there is no new version.

        The options are those of `build`. ``encoder`` may also be a function that loads it, which is called only if a
        source is new or has changed. By default, a source that cannot be read is skipped, and keeps its old
        passages. ``resume`` continues an interrupted addition of the same sources. ``remove_missing`` also removes
        the passages of files in these folders that no longer exist; a folder may then be empty.

        Raises:
            EncoderMismatchError: Another encoder embedded the passages.
            SourceError: A source is missing, or none can be read, or a document's id is taken.
        """
        if not callable(encoder):
            self.check_encoder(encoder)
        writer_at(self.storage.location).add(
            _paths(sources),
            encoder=encoder,
            options=ChangeOptions(strict, engine, reading, resume, progress or NoProgress()),
            remove_missing=remove_missing,
        )
        return self.latest()

    def compare(
        self, sources: Sequence[Path | str | SourceFile], *, reading: ReadSettings = DEFAULT_READING
    ) -> SourceChanges:
        """What `add` with ``remove_missing`` would read and remove; changes nothing."""
        return writer_at(self.storage.location).compare(_paths(sources), reading)

    def delete(self, *, ids: Sequence[str] = (), sources: Sequence[str] = ()) -> KnowledgeBase:
        """Delete passages. One that another source or document also contains stays, as a passage of that one.

        Args:
            ids: Ids of passages or documents; an unknown one is an error.
            sources: Paths of sources, of folders above them, or glob patterns, as for reading; one that
                matches nothing is an error.
        """
        if not ids and not sources:
            raise ConfigurationError("There is nothing to delete: give ids or sources.")
        writer_at(self.storage.location).delete(ids=ids, sources=sources)
        return self.latest()

    def compact(self, *, keep: int | None = 1, progress: Progress | None = None) -> KnowledgeBase:
        """Free the space of deleted passages: merges segments in a folder, runs ``VACUUM`` in PostgreSQL.

        In a folder, this deletes all old versions except the ``keep`` newest; ``None`` keeps all.
        A reader that has one open keeps it.
        """
        _check_keep(keep)
        writer_at(self.storage.location).compact(keep=keep, progress=progress or NoProgress())
        return self.latest()

    def prune(self, *, keep: int) -> None:
        """Delete all versions in a folder except the current one and the ``keep`` newest others.

        A reader that has one open keeps it. PostgreSQL has only one version.
        """
        _check_keep(keep)
        writer_at(self.storage.location).prune(keep)

    def reembed(
        self,
        output: Path | str,
        *,
        encoder: TextEncoder,
        engine: Engine | None = None,
        keep: int | None = None,
        keep_named: Collection[str] = (),
        resume: bool = False,
        progress: Progress | None = None,
    ) -> KnowledgeBase:
        """Embed the same passages with another encoder, without reading the sources again, and open the result.

        Args:
            output: The folder to create; an existing knowledge base, such as this one, gets a new version.
            encoder: Embeds the passages.
            engine: Where they are embedded, such as `RayEngine`; by default in this process.
            keep: How many of the newest older versions of ``output`` to keep; by default all.
            keep_named: Further versions to keep; versions that do not exist are ignored.
            resume: Continue an interrupted run with the same encoder.
            progress: Receives the progress.
        """
        location = location_of(output)
        if not isinstance(location, Path):
            raise ConfigurationError(f"{location} is a database. Give a folder.")
        _check_keep(keep)
        folder_writer(location).reembed(
            self._snapshot("embed its passages again"),
            encoder=encoder,
            options=ChangeOptions(engine=engine, resume=resume, progress=progress or NoProgress()),
            keep=keep,
            keep_named=keep_named,
        )
        return type(self).open(output, encoder=encoder)

    def publish(self, uri: str, *, keep: int = 1, progress: Progress | None = None) -> KnowledgeBase:
        """Publish this version to Milvus, make it the current one there, and open it.

        A publication that is interrupted leaves the current version unchanged; publishing the same version again
        resumes it, and sends nothing if it is already there. The ``keep`` newest older versions are kept.

        The URI is ``milvus+http://host:19530?collection=kb``, or for Milvus Lite
        ``milvus:///folder/kb.db?collection=kb``.

        Raises:
            KnowledgeBaseError: Milvus cannot be used, or a passage is too long for it.
            ConfigurationError: This is not a URI of Milvus, or ``keep`` is below 0.
        """
        location = _milvus(uri)
        from ragweave.knowledge.milvus.publishing import publish

        publish(self.storage, location, keep=keep, progress=progress or NoProgress())
        return type(self).open(uri)

    def push_to_hub(
        self, repository: str, *, licence: str, description: str = "", private: bool = True
    ) -> str:
        """Share this version on the Hugging Face hub, as a data set with a card, in one commit.

        The card lists the sources with the names that passages show. The commit is the ``revision`` of `from_hub`.

        Args:
            repository: ``NAME/REPOSITORY``; it is created if it does not exist.
            licence: The licence of the texts, such as ``"cc-by-4.0"``.
            description: What the knowledge base is about, in Markdown.
            private: Whether a new repository is private.
        """
        snapshot = self._snapshot("push it to the hub")
        return push(snapshot, repository, licence=licence, description=description, private=private)

    @classmethod
    def from_hub(
        cls, repository: str, *, revision: str | None = None, encoder: TextEncoder | None = None
    ) -> KnowledgeBase:
        """Download a version that `push_to_hub` shared in ``NAME/REPOSITORY``, and open it for reading.

        A commit as ``revision`` always gives the same knowledge base; the default is the latest commit.
        """
        return cls.open(hub_snapshot(repository, revision, PATTERNS), encoder=encoder)

    def swap(self, version: str) -> KnowledgeBase:
        """Make another version current, an older or a newer one, and open it; see the function `swap`."""
        return swap(self.path, version)

    def versions(self) -> list[Manifest]:
        """The manifests of all versions, oldest first, as `version_names` lists them."""
        layout = self._snapshot("list versions").layout
        return [Manifest.read(layout.version(name).manifest) for name in layout.version_names()]

    def version_names(self) -> list[str]:
        """The names of all versions, oldest first."""
        return self._snapshot("list versions").layout.version_names()

    def verify(self) -> tuple[int, int]:
        """Read every byte and compare it with its hash; see `verify_folder`."""
        return verify_folder(self._snapshot("verify its files").path, self.version)

    def _snapshot(self, action: str) -> Snapshot:
        """The version as a folder; an error, which names the action, if it is in a database."""
        if isinstance(self.storage, Snapshot):
            return self.storage
        raise needs_folder(self.storage.location, action)


def swap(path: Path | str, version: str) -> KnowledgeBase:
    """Make a version of a knowledge base current, even if its pointer is damaged, and open it."""
    location = location_of(path)
    if not isinstance(location, Path):
        raise needs_folder(location, "make another version current")
    layout = Layout(location)
    if not layout.is_knowledge_base():
        layout.read_current()  # raises the right error
    folder_writer(location).swap(version)
    return KnowledgeBase.open(location)


def _check_keep(keep: int | None) -> None:
    if keep is not None and keep < 0:
        raise ConfigurationError(f"keep is {keep}. Give 0 or more.")


def roll_back(uri: str) -> KnowledgeBase:
    """Make the version that was published to Milvus before the current one current again, and open it."""
    location = _milvus(uri)
    from ragweave.knowledge.milvus.publishing import roll_back

    roll_back(location)
    return KnowledgeBase.open(uri)


def _milvus(uri: str) -> MilvusUri:
    location = location_of(uri)
    if not isinstance(location, MilvusUri):
        raise ConfigurationError(
            f"{location} is not a URI of Milvus. Give milvus+http://host:19530?collection=NAME, or "
            "milvus:///folder/file.db?collection=NAME."
        )
    return location


def _paths(sources: Sequence[Path | str | SourceFile]) -> list[Path | SourceFile]:
    return [Path(source) if isinstance(source, str) else source for source in sources]
