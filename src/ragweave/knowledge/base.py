"""The knowledge base: passages, their vectors and an index, in a folder of immutable versions, or in a database.

Notation used for tensor shapes: B questions, K passages per question, N passages, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import (
    ConfigurationError,
    IndexDataError,
    KnowledgeBaseError,
    ShapeError,
)
from ragweave.knowledge.chunking_settings import Chunking
from ragweave.knowledge.layout import Layout
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.postgres.uri import is_uri
from ragweave.knowledge.progress import NoProgress, Progress
from ragweave.knowledge.snapshot import Snapshot
from ragweave.knowledge.storage import Reader
from ragweave.types import Passage

if TYPE_CHECKING:
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.ingest.builder import Engine
    from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
    from ragweave.knowledge.source_records import SourceFile
    from ragweave.knowledge.storage import WordScores
    from ragweave.retrieval.index_protocol import PassageScorer
    from ragweave.types import SearchSettings


class KnowledgeBase:
    """One version of a knowledge base, open for reading; make it with `build` or `open`.

    Passages and vectors are memory-mapped, so opening a large one is quick and several processes share its
    memory. A version never changes: who has it open keeps it, whatever is built, added or deleted after. The methods
    that change a knowledge base return its new version.

    Args:
        path: The folder of the knowledge base.
        version: The version's name.
        manifest: What the version holds.

    Attributes:
        path: The folder of the knowledge base; the URI of one in a database, without a password.
        version: The version's name.
        manifest: What the version holds, and how it was made.

    Raises:
        KnowledgeBaseError: A file of the version is missing or damaged.

    Example:
        >>> base = KnowledgeBase.build([Path("notes")], Path("kb"), encoder=encoder)
        >>> scores, rows = base.search(encoder.encode(["Where is Lima?"]), 5)
        >>> base.passages(rows[0])[0].title
        'Peru'
        >>> base = base.add([Path("more-notes")], encoder=encoder)
    """

    def __init__(self, *, path: Path, version: str, manifest: Manifest) -> None:
        self.path: Path | str = path
        self.version = version
        self.manifest = manifest
        self._snapshot = Snapshot(Layout(path), version, manifest)
        self._reader: Reader = self._snapshot

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
        overwrite: bool = False,
        strict: bool = False,
        engine: Engine | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> KnowledgeBase:
        """Build a knowledge base from files and folders.

        Nothing is at ``output``, or what was there before, until all of it is written. A passage whose title and text
        are those of one before is left out.

        Args:
            sources: Files and folders of documents, of the kinds that `read_documents` names; data sets of the hub,
                ``hf://datasets/NAME@REVISION,CONFIGURATION:SPLIT``.
            output: The folder to make, or the URI of a database; see `ragweave.knowledge.databases`.
            encoder: What embeds the passages, and will embed the questions.
            chunking: How documents are cut into passages; about 100 words, at the ends of sentences, where left out.
            index: How passages are searched: ``"flat"``, ``"hnsw"``, ``"ivfpq"``, ``"sq8"``, words of FAISS' index
                factory, or ``"auto"``, which compares all vectors up to 100,000 and is ``"hnsw"`` above.
            parameters: Settings of the search, such as ``{"nprobe": 16}`` or ``{"efSearch": 64}``.
            language: The language of the words that passages are searched by, by which they are stemmed; ``"none"``
                to compare words as they are written, ``None`` to search by vectors alone.
            overwrite: Give a knowledge base that is at ``output`` a new version. Its older ones are kept.
            strict: Fail at a source that cannot be read; it is skipped otherwise, and ``manifest.change`` says so.
            engine: What embeds the passages, such as `RayEngine`; this process where left out.
            resume: Go on with a build of the same sources and settings that was interrupted.
            progress: Hears how far it is.

        Returns:
            The knowledge base, open.

        Raises:
            KnowledgeBaseError: The place is taken, in use, or cannot be written.
            SourceError: A source is missing, or none can be read.
            ConfigurationError: FAISS, or the database, has no such index, or there is no stemmer for the language.
        """
        from ragweave.knowledge.analyzer import Analyzer
        from ragweave.knowledge.ingest.builder import IngestSettings, LocalEngine
        from ragweave.knowledge.ingest.loaders.loader import find_sources
        from ragweave.knowledge.places import check_kind, writer_of

        parameters = parameters or {}
        check_kind(output, index, parameters, encoder.dimension)
        if language is not None:
            Analyzer(language)
        build = writer_of(output)
        build(
            find_sources([Path(own) if isinstance(own, str) else own for own in sources]),
            encoder=encoder,
            settings=IngestSettings(
                chunking=chunking or Chunking(),
                engine=engine or LocalEngine(),
                index_kind=index,
                index_parameters=parameters,
                strict=strict,
                language=language,
            ),
            overwrite=overwrite,
            resume=resume,
            progress=progress or NoProgress(),
        )
        return cls.open(output, encoder=encoder)

    @classmethod
    def open(
        cls, path: Path | str, *, encoder: TextEncoder | None = None, version: str | None = None
    ) -> KnowledgeBase:
        """Open the version that is in force, or another.

        Args:
            path: The folder of the knowledge base, or the URI of a database.
            encoder: The encoder of the questions, to be compared with the one that embedded the passages.
            version: The version's name; that in force where left out.

        Returns:
            The knowledge base.

        Raises:
            KnowledgeBaseError: This is not a knowledge base, or it is damaged, or of an unknown format.
            EncoderMismatchError: The passages were embedded by another encoder.
        """
        if is_uri(path):
            from ragweave.knowledge.postgres.knowledge_base import DatabaseKnowledgeBase

            return DatabaseKnowledgeBase.open(path, encoder=encoder, version=version)
        layout = Layout(Path(path))
        pointer = layout.read_current()
        if version is not None and version not in layout.version_names():
            raise KnowledgeBaseError(
                f"There is no version '{version}' in {path}: 'ragweave versions {path}' lists them."
            )
        name = version or pointer.version
        manifest = Manifest.read(layout.version(name).manifest)
        if version is None and not manifest.checksum.startswith(pointer.checksum):
            raise KnowledgeBaseError(
                f"The pointer {layout.current} is damaged: it does not belong to version {name}. Put a version in "
                f"force with 'ragweave rollback {path} VERSION'."
            )
        base = cls(path=layout.root, version=name, manifest=manifest)
        if encoder is not None:
            base.check_encoder(encoder)
        return base

    def latest(self) -> KnowledgeBase:
        """The version that is in force by now: this one, or another that is opened.

        Raises:
            KnowledgeBaseError: It is damaged.
        """
        return (
            self
            if Layout(self._snapshot.path).read_current().version == self.version
            else type(self).open(self.path)
        )

    def add(
        self,
        sources: Sequence[Path | str | SourceFile],
        *,
        encoder: TextEncoder,
        strict: bool = False,
        engine: Engine | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> KnowledgeBase:
        """Add sources: what was read from them before is replaced where they have changed, and kept where not.

        What was deleted from an unchanged source stays deleted.

        Args:
            sources: Files and folders of documents.
            encoder: The encoder that embedded the passages.
            strict: Fail at a source that cannot be read; it is skipped otherwise, and keeps its old passages.
            engine: What embeds the passages, such as `RayEngine`; this process where left out.
            resume: Go on with an addition of the same sources that was interrupted.
            progress: Hears how far it is.

        Returns:
            The new version; the one in force where nothing has changed.

        Raises:
            KnowledgeBaseError: Another process is changing the knowledge base, or it cannot be written.
            EncoderMismatchError: The passages were embedded by another encoder.
            SourceError: A source is missing, or none can be read, or a document's id is taken.
        """
        from ragweave.knowledge.ingest.changes import add
        from ragweave.knowledge.ingest.loaders.loader import find_sources
        from ragweave.knowledge.ingest.transaction import transaction

        self.check_encoder(encoder)
        files = find_sources([Path(own) if isinstance(own, str) else own for own in sources])
        with transaction(self._snapshot.path, resume=resume, resumable=True):
            add(
                type(self).open(self.path, encoder=encoder)._snapshot,
                files,
                encoder=encoder,
                strict=strict,
                engine=engine,
                resume=resume,
                progress=progress or NoProgress(),
            )
        return self.latest()

    def delete(self, *, ids: Sequence[str] = (), sources: Sequence[str] = ()) -> KnowledgeBase:
        """Delete passages.

        Args:
            ids: Ids of passages, or of documents.
            sources: Paths of what was read, of folders above it, or glob patterns.

        Returns:
            The new version.

        Raises:
            KnowledgeBaseError: There is nothing of this name, or the knowledge base cannot be changed.
            ConfigurationError: Nothing was named.
        """
        from ragweave.knowledge.ingest.changes import delete
        from ragweave.knowledge.ingest.transaction import transaction

        if not ids and not sources:
            raise ConfigurationError("Nothing to delete was named: give ids or sources.")
        with transaction(self._snapshot.path):
            delete(type(self).open(self.path)._snapshot, ids=ids, sources=sources)
        return self.latest()

    def compact(self, *, keep: int = 1, progress: Progress | None = None) -> KnowledgeBase:
        """Write what is there as one segment, with one index, and delete old versions.

        Who has an old version open keeps it.

        Args:
            keep: How many versions beside the new one are kept, the newest.
            progress: Hears how far it is.

        Returns:
            The new version; the one in force where it is one segment already.

        Raises:
            KnowledgeBaseError: Another process is changing the knowledge base, or it cannot be written.
        """
        from ragweave.knowledge.ingest.changes import compact
        from ragweave.knowledge.ingest.transaction import transaction

        if keep < 0:
            raise ConfigurationError(f"keep is {keep}: give 0 or more.")
        with transaction(self._snapshot.path):
            compact(type(self).open(self.path)._snapshot, keep=keep, progress=progress or NoProgress())
        return self.latest()

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
        """Embed the same passages with another encoder, without reading the sources again.

        Args:
            output: The folder to make; a knowledge base that is there, this one too, gets a new version.
            encoder: What embeds them.
            engine: Where they are embedded, such as `RayEngine`; this process where left out.
            keep: How many older versions at ``output`` are kept, the newest; all where left out.
            keep_named: Versions that are kept beside these; some may be gone already.
            resume: Go on where this was interrupted, with the same encoder.
            progress: Hears how far it is.

        Returns:
            What was written, open.

        Raises:
            KnowledgeBaseError: The place is taken, in use, or cannot be written; or there is no passage.
            ConfigurationError: The output is a database, or ``keep`` is below 0.
        """
        from ragweave.knowledge.ingest.changes import reembed

        if is_uri(output):
            raise ConfigurationError(f"{output} is a database: give a folder.")
        if keep is not None and keep < 0:
            raise ConfigurationError(f"keep is {keep}: give 0 or more.")
        reembed(
            self._snapshot,
            Path(output),
            encoder=encoder,
            engine=engine,
            keep=keep,
            keep_named=keep_named,
            resume=resume,
            progress=progress or NoProgress(),
        )
        return type(self).open(output, encoder=encoder)

    def swap(self, version: str) -> KnowledgeBase:
        """Put another version in force, an older one or a newer.

        Args:
            version: Its name.

        Returns:
            That version.

        Raises:
            KnowledgeBaseError: There is no such version, or it is damaged.
        """
        return swap(self.path, version)

    def versions(self) -> list[Manifest]:
        """What all versions hold that are there, the oldest first, by `version_names`."""
        layout = Layout(self._snapshot.path)
        return [Manifest.read(layout.version(name).manifest) for name in layout.version_names()]

    def version_names(self) -> list[str]:
        """The names of all versions that are there, the oldest first."""
        return Layout(self._snapshot.path).version_names()

    def __len__(self) -> int:
        return self.manifest.passages

    def vectors_of(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of M passages, (M, D)."""
        return self._reader.vectors(np.asarray(rows, dtype=np.int64))

    def passage(self, row: int) -> Passage:
        """Look one passage up.

        Raises:
            IndexError: There is no such row.
        """
        return self._reader.passage(int(row))

    def passages(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Passage]:
        """Look several passages up.

        Raises:
            IndexError: There is no such row.
        """
        return [self.passage(row) for row in rows]

    def row_of(self, passage_or_document_id: str) -> list[int]:
        """Find the row of a passage, or the rows of all passages of a document; empty if there is none."""
        return self._reader.row_of(passage_or_document_id)

    def rows_of(self, names: Collection[str]) -> dict[str, list[int]]:
        """Find the rows of many passages and documents at once; those of names that are not there are empty."""
        return self._reader.rows_of(names)

    def search(self, vectors: NDArray[np.float32], n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the passages with the largest inner products.

        Args:
            vectors: Question vectors, shape (B, D).
            n: How many passages per question, K.

        Returns:
            Scores, shape (B, K), best first, and rows, shape (B, K). Where there are fewer than K passages
            the scores are minus infinity and the rows -1.

        Raises:
            ShapeError: ``vectors`` is not a matrix.
            IndexDataError: The vectors are of another dimension than the index.
            ConfigurationError: ``n`` is below 1.
        """
        if n < 1:
            raise ConfigurationError(f"n is {n}: ask for at least 1 passage.")
        dimension = self.manifest.dimension
        if vectors.ndim != 2:
            raise ShapeError(f"vectors has shape {vectors.shape}: expected (B, {dimension}).")
        if vectors.shape[1] != dimension:
            raise IndexDataError(
                f"vectors has shape {vectors.shape}, but the passages' vectors have dimension {dimension}: "
                f"use the encoder that embedded them, {self.manifest.encoder.name}."
            )
        return self._reader.search(np.ascontiguousarray(vectors, dtype=np.float32), n)

    def search_text(
        self, questions: Sequence[str], n: int, *, k1: float = 0.9, b: float = 0.4
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the passages that share the most telling words with questions, by BM25.

        Args:
            questions: B questions.
            n: How many passages per question, K.
            k1: How soon further occurrences of a word cease to count.
            b: How much the length of a passage counts, from 0 to 1.

        Returns:
            Scores, shape (B, K), best first, 0 for passages that share no word, and rows, shape (B, K). Where there
            are fewer than K passages (in a database, fewer that share a word) the scores are minus infinity and
            the rows -1.

        Raises:
            KnowledgeBaseError: It was built to be searched by vectors alone.
            ConfigurationError: ``n`` is below 1, or another number cannot be.
        """
        if n < 1:
            raise ConfigurationError(f"n is {n}: ask for at least 1 passage.")
        score = self.text_scorer(k1=k1, b=b)
        scores = np.full((len(questions), n), -np.inf, dtype=np.float32)
        rows = np.full((len(questions), n), -1, dtype=np.int64)
        for place, question in enumerate(questions):
            own, values = score(question).best(n)
            rows[place, : len(own)], scores[place, : len(own)] = own, values
        return scores, rows

    def text_scorer(self, *, k1: float = 0.9, b: float = 0.4) -> Callable[[str], WordScores]:
        """What scores passages by BM25 for one question.

        Raises:
            KnowledgeBaseError: It was built to be searched by vectors alone.
            ConfigurationError: A number cannot be.
        """
        return self._reader.text_scorer(k1=k1, b=b)

    def as_index(
        self,
        settings: SearchSettings | None = None,
        *,
        defaults: SearchSettings | None = None,
        reranker: PassageScorer | None = None,
    ) -> KnowledgeBaseIndex:
        """This knowledge base as an index for `RagRetriever`.

        Args:
            settings: How it is searched; what they leave open is as `defaults` says.
            defaults: How the model searches where nobody says; by vectors where that is left out.
            reranker: Reads the candidates together with the question; its logits are then their scores.

        Raises:
            KnowledgeBaseError: It is to be searched by words, and was built for vectors alone.
        """
        from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex

        return KnowledgeBaseIndex(self, settings=settings, defaults=defaults, reranker=reranker)

    def info(self) -> dict[str, Any]:
        """Describe the knowledge base in values that JSON can hold."""
        manifest = self.manifest
        return {
            "path": str(self.path),
            "version": self.version,
            "created": manifest.created,
            "documents": manifest.documents,
            "passages": manifest.passages,
            "chunking": manifest.chunking.kind,
            "words": manifest.chunking.words,
            "tokens": manifest.chunking.tokens,
            "overlap": manifest.chunking.overlap,
            "encoder": manifest.encoder.name,
            "fingerprint": manifest.encoder.fingerprint,
            "pooling": manifest.encoder.pooling,
            "normalize": manifest.encoder.normalize,
            "max_length": manifest.encoder.max_length,
            "dimension": manifest.dimension,
            "index": manifest.index.kind,
            "parameters": manifest.index.parameters,
            "language": manifest.language,
            "segments": len(manifest.segments),
            "recall": manifest.recall,
            "metric": manifest.index.metric,
            "bytes": sum(
                record.bytes
                for files in (manifest.files, *(segment.files for segment in manifest.segments))
                for record in files.values()
            ),
        }

    def check_encoder(self, encoder: TextEncoder) -> None:
        """Check that an encoder is the one that embedded the passages.

        Raises:
            EncoderMismatchError: It is not.
        """
        self.manifest.encoder.check(encoder, self.path)

    def verify(self) -> None:
        """Read every byte and compare it with what was written.

        Raises:
            KnowledgeBaseError: A file has changed.
        """
        self._snapshot.verify()


def swap(path: Path | str, version: str) -> KnowledgeBase:
    """Put a version of a knowledge base in force, also of one whose pointer is damaged.

    Raises:
        KnowledgeBaseError: There is no such version, or it is damaged, or another process is changing the knowledge
            base.
    """
    from ragweave.knowledge.ingest.changes import swap as swap_version
    from ragweave.knowledge.ingest.transaction import transaction

    if is_uri(path):
        return KnowledgeBase.open(path).swap(version)
    layout = Layout(Path(path))
    if not layout.is_knowledge_base():
        layout.read_current()  # says what is wrong
    with transaction(layout.root):
        swap_version(layout, version)
    return KnowledgeBase.open(path)
