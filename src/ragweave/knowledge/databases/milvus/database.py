"""A knowledge base in Milvus: reading it.

Notation used for tensor shapes: B questions, K passages per question, D vector size.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import grpc
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge.databases.milvus.change import MilvusChange
from ragweave.knowledge.databases.milvus.collections import (
    K1,
    MOST_FOUND,
    B,
    among,
    create_base,
    is_base,
    number_of,
    rows_of,
)
from ragweave.knowledge.databases.milvus.connection import (
    READ,
    WRITE,
    Connection,
    close_file,
    is_missing,
    sentences,
)
from ragweave.knowledge.databases.milvus.journal import Base, finish, read_base, take_back
from ragweave.knowledge.databases.milvus.lease import lease
from ragweave.knowledge.databases.milvus.words import MilvusWordScores
from ragweave.knowledge.databases.protocol import Record, State
from ragweave.knowledge.databases.uri import MilvusUri
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.passages import Passage
from ragweave.knowledge.store import COLUMNS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_T = TypeVar("_T")

_EF_SEARCH = 100
_OUTPUT = ["row", *COLUMNS, "vector"]


class MilvusDatabase:
    """Satisfies `Database` with collections of Milvus; several threads may use it.

    Args:
        uri: Where they are.
    """

    most_indexed = 32_768

    def __init__(self, uri: MilvusUri) -> None:
        self.place = uri.shown
        self._uri = uri
        self._connection = Connection(uri, self._load)
        self._base: Base | None = None

    def state(self) -> State | None:
        """What is there; ``None`` for nothing."""
        if self._uri.file is not None and not self._uri.file.exists():
            return None  # opening it would make it
        self._base = self._connection.run(lambda client: _read(client, self._uri.collection))
        return _state(self._base, self.place)

    def search(self, questions: NDArray[np.float32], n: int) -> list[list[tuple[float, Record]]]:
        """For each of B questions, at most K inner products and passages, best first.

        Raises:
            ConfigurationError: K is more than Milvus finds.
        """
        state = _state(self._base, self.place)
        parameters = {} if state is None else state.manifest.index.parameters
        ef = max(parameters.get("efSearch", _EF_SEARCH), _checked(n))

        def work(client: MilvusClient, passages: str) -> list[list[tuple[float, Record]]]:
            found = client.search(
                passages,
                data=list(questions),
                anns_field="vector",
                limit=n,
                search_params={"metric_type": "IP", "params": {"ef": ef}},
                output_fields=_OUTPUT,
                timeout=READ,
            )
            return [
                [(float(hit["distance"]), _record(hit["row"], hit["entity"])) for hit in own] for own in found
            ]

        return [sorted(hits, key=lambda hit: (-hit[0], hit[1].row)) for hits in self._reading(work)]

    def fetch(self, rows: Sequence[int]) -> list[Record]:
        """Look distinct rows up; those that are not there are left out."""

        def work(client: MilvusClient, passages: str) -> list[Record]:
            found = client.get(passages, ids=list(rows), output_fields=_OUTPUT, timeout=READ)
            return [_record(row["row"], row) for row in found]

        return self._reading(work)

    def rows_with(self, column: Literal["id", "document_id"], value: str) -> list[int]:
        """The rows that have a value in a column, rising."""
        number = {"id": "id_number", "document_id": "document_number"}[column]
        (condition,) = among(number, [number_of(value)])

        def work(client: MilvusClient, passages: str) -> list[int]:
            found = rows_of(client, passages, condition, ["row", column])
            return sorted(row["row"] for row in found if row[column] == value)

        return self._reading(work)

    def words_asked(self, words: Sequence[str], *, k1: float, b: float) -> MilvusWordScores:
        """Score passages by BM25 for the words of a question.

        Raises:
            ConfigurationError: The numbers are not those that the index was made with.
        """
        if (k1, b) != (K1, B):
            raise ConfigurationError(
                f"Milvus computes BM25 with k1 {K1} and b {B}, which its index fixes: leave k1 and b as they are."
            )

        def search(text: str, n: int) -> list[tuple[int, float]]:
            def work(client: MilvusClient, passages: str) -> list[tuple[int, float]]:
                (found,) = client.search(
                    passages,
                    data=[text],
                    anns_field="counts",
                    limit=_checked(n),
                    search_params={"metric_type": "BM25"},
                    output_fields=["row"],
                    timeout=READ,
                )
                return [(hit["row"], float(hit["distance"])) for hit in found]

            return self._reading(work)

        return MilvusWordScores(search, words)

    def bytes(self) -> int | None:
        """How much room the file takes, with all that is in it; a server does not say."""
        if self._uri.file is None:
            return None
        return sum(path.stat().st_size for path in self._uri.file.rglob("*") if path.is_file())

    @contextmanager
    def changing(self) -> Iterator[MilvusChange]:
        """Be the one writer; a change that another one has left unfinished is mended first.

        Raises:
            KnowledgeBaseError: Another process is, or the server cannot be reached or fails.
        """
        name = self._uri.collection
        with sentences(self._uri), self._new_file():
            client = self._connection.run(lambda client: _with_base(client, self._uri))
            with self._one_writer(client) as check:
                base = _mended(client, name)
                change = MilvusChange(
                    client,
                    name,
                    base,
                    _state(base, self.place),
                    check=check,
                    in_file=self._uri.file is not None,
                )
                try:
                    yield change
                finally:
                    if not change.committed:
                        # Where the server is gone, or another writer is at work, that one does it.
                        with suppress(KnowledgeBaseError, MilvusException, grpc.RpcError):
                            check()
                            self._abandon(client)
            self._base = change.base

    def tidy(self) -> None:
        """Give back the room of what was deleted."""
        self._reading(lambda client, passages: client.compact(passages, timeout=WRITE))

    def close(self) -> None:
        """Close the connection; the next use makes another."""
        self._connection.close()

    def _reading(self, work: Callable[[MilvusClient, str], _T]) -> _T:
        """Read passages, from another collection where the knowledge base was built anew."""
        if self._base is None and self.state() is None:
            raise KnowledgeBaseError(f"The knowledge base at {self.place} is gone: build it again.")

        def once(client: MilvusClient) -> _T:
            base = self._base or Base()
            try:
                return work(client, base.passages)
            except MilvusException as error:
                if not is_missing(error):
                    raise
                self._base = _read(client, self._uri.collection)
                if self._base is None or self._base.passages == base.passages:
                    raise
                return work(client, self._base.passages)

        return self._connection.run(once)

    def _one_writer(self, client: MilvusClient) -> AbstractContextManager[Callable[[], None]]:
        if self._uri.file is None:
            return lease(client, self._uri)
        return _one_thread(self._uri.file, self.place)

    def _abandon(self, client: MilvusClient) -> None:
        """Take back what was written, unless it is in force after all; nothing stays of a first build."""
        if not _mended(client, self._uri.collection).version:
            client.drop_collection(self._uri.collection, timeout=WRITE)

    @contextmanager
    def _new_file(self) -> Iterator[None]:
        """Where a file is made by what follows, remove it if that fails."""
        file = self._uri.file
        is_new = file is not None and not file.exists()
        try:
            yield
        except BaseException:
            if is_new and file is not None:
                self._connection.close()
                close_file(file)
                shutil.rmtree(file, ignore_errors=True)
            raise

    def _load(self, client: MilvusClient) -> None:
        """Have the server load the collections."""
        name = self._uri.collection
        if client.has_collection(name, timeout=READ):
            client.load_collection(name, timeout=WRITE)
            if (base := _read(client, name)) and base.passages:
                client.load_collection(base.passages, timeout=WRITE)


def _with_base(client: MilvusClient, uri: MilvusUri) -> MilvusClient:
    """The client, with a collection of records.

    Raises:
        KnowledgeBaseError: There is another collection of this name.
    """
    name = uri.collection
    if not client.has_collection(name, timeout=READ):
        create_base(client, name)
    elif not is_base(client, name):
        raise KnowledgeBaseError(
            f"The collection {name} at {uri.host} is no knowledge base: choose another name in the URI "
            "(collection=NAME)."
        )
    read_base(client, name)  # fails where it is not loaded
    return client


def _read(client: MilvusClient, name: str) -> Base | None:
    try:
        return read_base(client, name)
    except MilvusException as error:
        if is_missing(error):
            return None
        raise


def _state(base: Base | None, place: str) -> State | None:
    return (
        None
        if base is None or not base.version
        else State(base.version, Manifest.parse(base.manifest, place))
    )


def _mended(client: MilvusClient, name: str) -> Base:
    """What holds, once what a writer that is gone has begun is finished or taken back."""
    base = read_base(client, name) or Base()
    if not base.open:
        return base
    mend = finish if base.version == base.begun else take_back
    mend(client, name, base)
    return read_base(client, name) or Base()


@contextmanager
def _one_thread(file: Path, place: str) -> Iterator[Callable[[], None]]:
    """Be the one writer in this process; no other can open the file. Yields what checks that: nothing has to."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(file / "ragweave.lock", timeout=0, thread_local=False):
            yield lambda: None
    except Timeout as error:
        raise KnowledgeBaseError(f"{place} is being changed by this process: try again later.") from error


def _checked(n: int) -> int:
    if n > MOST_FOUND:
        raise ConfigurationError(
            f"Milvus finds at most {MOST_FOUND} passages at a time, not {n}: ask for fewer."
        )
    return n


def _record(row: int, fields: Mapping[str, Any]) -> Record:
    import numpy as np

    passage = Passage(**{name: fields[name] for name in COLUMNS})
    return Record(int(row), passage, np.asarray(fields["vector"], dtype=np.float32))
