"""The interface that `KnowledgeBase` needs from a storage, and the three storages.

A folder and PostgreSQL each have a `Storage`, which reads one version, and a writer, which makes the next one.
Milvus has a `Storage` of published versions. Only folders keep several versions and files; `needs_folder` makes the
error where these are needed.

Notation used for tensor shapes: B questions, K passages per question, M rows, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError, IndexDataError, KnowledgeBaseError, ShapeError
from ragweave.knowledge.layout import Location, MilvusUri, location_of
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.snapshot import Snapshot
from ragweave.types import Passage, SourceCount

if TYPE_CHECKING:  # see the imports within functions below
    from ragweave.knowledge.ingest.folder_writer import FolderWriter
    from ragweave.knowledge.postgres.writer import PostgresWriter


class WordScores(Protocol):
    """The BM25 scores of passages for one question."""

    def best(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most K rows, best first, and their scores; rows that share no word may be missing."""

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of M rows, (M,); 0 for rows that share no word."""


class Storage(Protocol):
    """One version of a knowledge base, open for reading."""

    version: str
    manifest: Manifest  # what the version holds

    @property
    def location(self) -> Location:
        """Where the knowledge base is."""

    def latest(self) -> Self:
        """Open the current version; returns this object if it is current."""

    def passage(self, row: int) -> Passage:
        """One passage; raises `IndexError` if the row does not exist."""

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of M rows, (M, D)."""

    def search(
        self, questions: NDArray[np.float32], n: int, where: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The passages with the largest inner products that meet a condition: scores and rows, (B, K), best first.

        Scores are minus infinity and rows -1 where there are fewer than K passages.
        """

    def columns(self) -> Collection[str]:
        """The names in the metadata of passages."""

    def text_scorer(self, *, k1: float, b: float, where: str | None = None) -> Callable[[str], WordScores]:
        """A function that scores the passages that meet a condition by BM25 for a question."""

    def rows_of(self, names: Collection[str]) -> dict[str, list[int]]:
        """The rows of passages and documents by their ids; empty for unknown ids."""

    def document(self, document_id: str) -> list[Passage]:
        """The passages of a document, with their ids, source and places in it, in any order."""

    def passage_of(self, source: str) -> Passage | None:
        """A passage that was read from a source; ``None`` if there is none."""

    def sources_of(self, row: int) -> list[str]:
        """The sources that hold a passage, each once."""

    def source_counts(self) -> dict[str, SourceCount]:
        """The sources and their numbers of passages, 0 where all are deleted."""

    def shards(self) -> Iterator[tuple[list[Passage], NDArray[np.float32]]]:
        """All passages with their vectors, (M, D), a shard at a time."""

    def bytes(self) -> int | None:
        """The size of the version; ``None`` if the database does not report it."""

    def close(self) -> None:
        """Close a connection, if there is one; the next use opens another."""


def checked_vectors(vectors: NDArray[np.float32], n: int, manifest: Manifest) -> NDArray[np.float32]:
    """Check the arguments of a search, and make the vectors (B, D) contiguous."""
    if n < 1:
        raise ConfigurationError(f"n is {n}. Ask for at least 1 passage.")
    if vectors.ndim != 2:
        raise ShapeError(f"vectors has shape {vectors.shape}. Expected (B, {manifest.dimension}).")
    if vectors.shape[1] != manifest.dimension:
        raise IndexDataError(
            f"vectors has shape {vectors.shape}, but the passages' vectors have dimension {manifest.dimension}. Use "
            f"the encoder that embedded them, {manifest.encoder.name}."
        )
    return np.ascontiguousarray(vectors, dtype=np.float32)


# The package's only imports within functions. Reading loads no loaders, chunking or engines, and a knowledge base in
# a folder needs no client of a database.


def open_storage(location: Location, version: str | None = None) -> Storage:
    """Open the current version of a knowledge base, or another version of a folder."""
    if isinstance(location, Path):
        return Snapshot.open(location, version)
    if isinstance(location, MilvusUri):
        from ragweave.knowledge.milvus.reader import MilvusReader

        return MilvusReader.open(location)
    from ragweave.knowledge.postgres.connection import Connection
    from ragweave.knowledge.postgres.reader import PostgresReader

    return PostgresReader.open(Connection(location))


def writer_at(location: Location) -> FolderWriter | PostgresWriter:
    """The writer that changes or builds a knowledge base."""
    if isinstance(location, Path):
        return folder_writer(location)
    if isinstance(location, MilvusUri):
        raise KnowledgeBaseError(
            f"{location} holds published versions, which cannot be changed. Change the knowledge base that it was "
            "published from, and publish it again with 'ragweave publish KB URI'."
        )
    from ragweave.knowledge.postgres.writer import PostgresWriter

    return PostgresWriter(location)


def folder_writer(path: Path) -> FolderWriter:
    """The writer of a knowledge base in a folder, which also manages versions."""
    from ragweave.knowledge.ingest.folder_writer import FolderWriter

    return FolderWriter(path)


def check_output(path: Path | str, *, overwrite: bool) -> None:
    """Check, before any work, that a knowledge base may be built at the path of a folder or the URI of a database."""
    writer_at(location_of(path)).check_output(overwrite=overwrite)


def needs_folder(location: Location, action: str) -> KnowledgeBaseError:
    """The error for an action that only a folder supports."""
    return KnowledgeBaseError(
        f"{location} is a database, which serves only the current version and has no files: ragweave cannot "
        f"{action}. Use the database's own tools, or a knowledge base in a folder."
    )
