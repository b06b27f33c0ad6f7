"""A change of a knowledge base in Milvus: what readers may see of it, and when it holds, is said in `journal`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from pymilvus import MilvusClient

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge.databases.milvus.collections import (
    LONGEST,
    among,
    create_passages,
    first_row,
    index_vectors,
    number_of,
    records_of,
    rows_of,
)
from ragweave.knowledge.databases.milvus.connection import READ, WRITE
from ragweave.knowledge.databases.milvus.journal import (
    Base,
    collection_of,
    finish,
    note,
    steps_of,
    write_base,
)
from ragweave.knowledge.databases.protocol import Gone, IndexKind, State, Written
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.passages import Passage
from ragweave.knowledge.sources import SourceRecord, Sources
from ragweave.knowledge.store import COLUMNS, NUMBERS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_REQUEST_BYTES = 16_000_000  # servers take 64 MB at most
_SKIPPED_BYTES = 20_000  # of the sentences about sources that could not be read


class MilvusChange:
    """Satisfies `Change`.

    Args:
        client: The client.
        name: The knowledge base's collection.
        base: What holds.
        state: What is there.
        check: Fails where this is no longer the one writer.
        in_file: Whether it is Milvus Lite that keeps them, which is slow before rows are in its files.

    Attributes:
        committed: Whether the change is in force.
        base: What holds now.
    """

    def __init__(
        self,
        client: MilvusClient,
        name: str,
        base: Base,
        state: State | None,
        *,
        check: Callable[[], None],
        in_file: bool,
    ) -> None:
        self.state = state
        self.committed = False
        self.base = base
        self._client, self._name, self._in_file, self._still_writer = client, name, in_file, check
        self._number = base.begun + 1
        self._first = first_row(self._number)
        self._target, self._written = base.passages, 0

    def sources(self) -> Sources:
        """What the knowledge base was made from."""
        records = (record for _, record in records_of(self._client, self._name, "source"))
        return {
            record["key"]: SourceRecord(source=record["source"], sha256=record["sha256"])
            for record in records
        }

    def begin(self, *, dimension: int, words: bool, anew: bool) -> None:
        """Make ready for `insert`; see `Change.begin`."""
        if anew:
            self._target = collection_of(self._name, self._number)
            if self._client.has_collection(self._target, timeout=READ):
                raise KnowledgeBaseError(
                    f"There is a collection {self._target} already that this knowledge base knows nothing of: choose "
                    "another name in the URI (collection=NAME)."
                )
        self._open(other=self._target if anew else "")
        if anew:
            create_passages(self._client, self._target, dimension=dimension, words=words)

    def known(self, hashes: NDArray[np.uint64], without: Collection[str]) -> NDArray[np.bool_]:
        """Which of M hashes are there, (M,); see `Change.known`."""
        import numpy as np

        own, left_out = hashes.view(np.int64), set(map(number_of, without))
        found = [
            row["hash"]
            for condition in among("hash", own.tolist())
            for row in self._before(condition, "hash", "source_number")
            if row["source_number"] not in left_out
        ]
        return np.isin(own, np.array(found, dtype=np.int64))

    def document_among(self, names: Collection[str], without: Collection[str]) -> tuple[str, str] | None:
        """A document that is there and is among these; see `Change.document_among`."""
        for condition in among("document_number", map(number_of, names)):
            for row in self._before(condition, "document_id", "source"):
                if row["document_id"] in names and row["source"] not in without:
                    return row["document_id"], row["source"]
        return None

    def check(self, passages: Sequence[Passage]) -> None:
        """Check that no text is longer than Milvus takes.

        Raises:
            KnowledgeBaseError: One is.
        """
        for passage in passages:
            for column in COLUMNS:
                if column not in NUMBERS:
                    _check_length(getattr(passage, column), column, passage)

    def insert(self, written: Written) -> None:
        """Write passages."""
        rows: list[dict[str, Any]] = []
        size = 0
        for place, passage in enumerate(written.passages):
            row = {
                **asdict(passage),
                "row": self._first + self._written,
                "hash": int(written.hashes.view("<i8")[place]),
                "id_number": number_of(passage.id),
                "document_number": number_of(passage.document_id),
                "source_number": number_of(passage.source),
                "vector": written.vectors[place],
            }
            if written.words is not None:
                row["words"] = " ".join(written.words[place])
                _check_length(row["words"], "list of words", passage)
            self._written += 1
            size += written.vectors[place].nbytes + 8 * len(passage.text.encode()) + 1000
            rows.append(row)
            if size > _REQUEST_BYTES:
                self._client.insert(self._target, rows, timeout=WRITE)
                rows, size = [], 0
        if rows:
            self._client.insert(self._target, rows, timeout=WRITE)

    def discard(self, sources: Collection[str]) -> int:
        """Take back what was written of some sources; how many passages."""
        removed = 0
        for condition in among("source_number", map(number_of, sources)):
            own = f"{condition} and row >= {self._first}"
            removed += self._count(own)
            self._client.delete(self._target, filter=own, timeout=WRITE)
        return removed

    def counted(self, gone: Gone) -> tuple[int, int]:
        """How many passages and documents go; see `Change.counted`."""
        going: dict[int, int] = {}  # rows and the numbers of their documents
        for column, numbers in (("source_number", map(number_of, gone.sources)), ("row", gone.rows)):
            for condition in among(column, numbers):
                going |= {
                    row["row"]: row["document_number"] for row in self._before(condition, "document_number")
                }
        left = Counter(going.values())
        there = Counter(
            row["document_number"]
            for condition in among("document_number", left)
            for row in self._before(condition, "document_number")
        )
        return len(going), sum(there[document] == count for document, count in left.items())

    def commit(self, manifest: Manifest, *, index: IndexKind, gone: Gone, sources: Sources) -> None:
        """Put the change in force; see `journal`."""
        self._open(other=self.base.other)
        anew = self._target != self.base.passages
        if self._written and (anew or self._in_file):
            self._client.flush(self._target, timeout=WRITE)
        if anew:
            index_vectors(self._client, self._target, index, manifest.index.parameters)
        forgotten = list(map(_key, gone.forgotten))
        if anew:  # nothing of what was known before is
            forgotten = [key for key, _ in records_of(self._client, self._name, "source")]
        steps = steps_of(
            gone=map(number_of, gone.sources),
            rows=gone.rows,
            sources={_key(key): {"key": key, **asdict(record)} for key, record in sources.items()},
            forgotten=forgotten,
        )
        note(self._client, self._name, steps)
        self._still_writer()
        self.base = Base(
            version=self._number,
            begun=self._number,
            open=True,
            passages=self._target,
            other=self.base.passages if anew else "",
            manifest=_short(manifest).to_json(),
        )
        write_base(self._client, self._name, self.base)
        self.committed = True
        finish(self._client, self._name, self.base)
        if not anew:
            index_vectors(self._client, self._target, index, manifest.index.parameters)

    def _open(self, other: str) -> None:
        """Say that a change is begun."""
        if self.base.begun != self._number:
            self.base = replace(self.base, begun=self._number, open=True, other=other)
            write_base(self._client, self._name, self.base)

    def _before(self, condition: str, *columns: str) -> list[dict[str, Any]]:
        """Rows that were there before the change."""
        if not self.base.passages:
            return []
        own = f"{condition} and row < {self._first}"
        return list(rows_of(self._client, self.base.passages, own, columns))

    def _count(self, condition: str) -> int:
        found = self._client.query(self._target, filter=condition, output_fields=["count(*)"], timeout=WRITE)
        return int(found[0]["count(*)"])


def _key(key: str) -> str:
    """The key of a source's record."""
    return f"source:{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}"


def _check_length(text: str, what: str, passage: Passage) -> None:
    length = len(text.encode())
    if length > LONGEST:
        raise KnowledgeBaseError(
            f"The {what} of passage '{passage.id[:200]}' from {passage.source[:200]} has {length} bytes, and Milvus "
            f"holds {LONGEST}: make passages shorter (--words), or keep the knowledge base in a folder or in "
            "PostgreSQL."
        )


def _short(manifest: Manifest) -> Manifest:
    """A manifest that fits into one record: of many sources that could not be read, it names the first."""
    sentences: list[str] = []
    left = _SKIPPED_BYTES
    for sentence in manifest.change.skipped:
        left -= len(sentence.encode())
        if left < 0:
            sentences.append(f"{len(manifest.change.skipped) - len(sentences)} more sources were skipped.")
            break
        sentences.append(sentence)
    return replace(manifest, change=replace(manifest.change, skipped=tuple(sentences)))
