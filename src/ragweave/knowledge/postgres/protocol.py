"""What a database has to be able to do to hold a knowledge base.

Notation used for tensor shapes: B questions, K passages per question, M passages, D vector size.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.source_records import Sources
from ragweave.knowledge.storage import WordScores
from ragweave.types import Passage

IndexKind = Literal["flat", "hnsw"]
"""Comparing with every vector, or a graph."""


@dataclass(frozen=True, slots=True)
class State:
    """The knowledge base that a database holds.

    Attributes:
        version: Counts its changes.
        manifest: What it holds, and how it was made.
    """

    version: int
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Record:
    """A passage as the database holds it.

    Attributes:
        row: Its number in the database, never given to another.
        passage: The passage.
        vector: Its vector, (D,).
    """

    row: int
    passage: Passage
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Written:
    """Passages to be written.

    Attributes:
        passages: M passages.
        hashes: Of their titles and texts, (M,).
        vectors: (M, D).
        words: The words of each; ``None`` where they are searched by vectors alone.
    """

    passages: Sequence[Passage]
    hashes: NDArray[np.uint64]
    vectors: NDArray[np.float32]
    words: list[list[str]] | None


@dataclass(frozen=True, slots=True)
class Gone:
    """What a change takes out.

    Attributes:
        sources: Sources all of whose passages go, as far as they were there before the change.
        rows: Further rows.
        forgotten: Sources that are no longer known, by their keys.
    """

    sources: Collection[str] = ()
    rows: Collection[int] = ()
    forgotten: Collection[str] = ()


class Change(Protocol):
    """A change that is being made by the one writer; nothing of it holds unless it is committed.

    Attributes:
        state: What was there when it began; ``None`` for nothing.
    """

    state: State | None

    def sources(self) -> Sources:
        """What the knowledge base was made from."""
        ...

    def begin(self, *, dimension: int, words: bool, anew: bool) -> None:
        """Make ready for `insert`.

        Args:
            dimension: D.
            words: Whether passages are searched by words too.
            anew: Whether nothing that is there shall stay.
        """
        ...

    def known(self, hashes: NDArray[np.uint64], without: Collection[str]) -> NDArray[np.bool_]:
        """Which of M hashes passages have that were there before the change, (M,), some sources left out."""
        ...

    def document_among(self, names: Collection[str], without: Collection[str]) -> tuple[str, str] | None:
        """The id and the source of a document that was there and is among these, but for those of some sources."""
        ...

    def check(self, passages: Sequence[Passage]) -> None:
        """Check that the database can hold passages, before they are embedded.

        Raises:
            KnowledgeBaseError: It cannot.
        """
        ...

    def insert(self, written: Written) -> None:
        """Write passages."""
        ...

    def discard(self, sources: Collection[str]) -> int:
        """Take back what the change has written of sources that turned out unreadable; how many passages."""
        ...

    def counted(self, gone: Gone) -> tuple[int, int]:
        """How many passages and how many documents go; a document goes with the last of its passages."""
        ...

    def commit(self, manifest: Manifest, *, index: IndexKind, gone: Gone, sources: Sources) -> None:
        """Put the change in force.

        Args:
            manifest: What the knowledge base holds now.
            index: How its vectors are searched.
            gone: What goes.
            sources: What was read, in addition to what is known or in place of it.
        """
        ...


class Database(Protocol):
    """A place in a database for one knowledge base.

    Attributes:
        place: Its URI, without a password.
        most_indexed: The largest D that can be searched by a graph.
    """

    place: str
    most_indexed: int

    def state(self) -> State | None:
        """What is there; ``None`` for nothing."""
        ...

    def search(self, questions: NDArray[np.float32], n: int) -> list[list[tuple[float, Record]]]:
        """For each of B questions, at most K inner products and passages, best first."""
        ...

    def fetch(self, rows: Sequence[int]) -> list[Record]:
        """Look distinct rows up, in any order; those that are not there are left out."""
        ...

    def rows_with(self, column: Literal["id", "document_id"], value: str) -> list[int]:
        """The rows that have a value in a column, rising."""
        ...

    def words_asked(self, words: Sequence[str], *, k1: float, b: float) -> WordScores:
        """Score passages by BM25 for the words of a question."""
        ...

    def bytes(self) -> int | None:
        """How much room it takes; ``None`` where nobody can say."""
        ...

    def changing(self) -> AbstractContextManager[Change]:
        """Be the one writer, until the context is left.

        Raises:
            KnowledgeBaseError: Another process is, or the database cannot be reached.
        """
        ...

    def tidy(self) -> None:
        """Give back the room of what was deleted."""
        ...

    def close(self) -> None:
        """Close the connection; the next use makes another."""
        ...
