"""What can be done to a knowledge base in a database, whichever that is: build, add, delete, compact.

The same steps as in a folder (`ragweave.knowledge.ingest.changes`), with its code for reading sources.
Passages are embedded and written a shard at a time; when a change comes into force, and what becomes of one that was
interrupted, is the database's part: `Change.commit`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError, KnowledgeBaseError, SourceError
from ragweave.knowledge.analyzer import Analyzer
from ragweave.knowledge.ingest.builder import Reading, Settings, occupied, read_shards
from ragweave.knowledge.ingest.changes import (
    changed_among,
    fingerprints,
    first_manifest,
    id_taken,
    nothing_called,
    nothing_done,
    renewed,
)
from ragweave.knowledge.ingest.duplicates import KnownHashes, SeenHashes
from ragweave.knowledge.ingest.engines import Engine
from ragweave.knowledge.manifest import ChangeRecord, Manifest, SegmentRecord
from ragweave.knowledge.postgres import index_kinds as kinds
from ragweave.knowledge.postgres.protocol import Change, Database, Gone, State, Written
from ragweave.knowledge.progress import NoProgress, Progress
from ragweave.knowledge.source_records import SourceRecord, named_by
from ragweave.types import Passage

if TYPE_CHECKING:
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.source_records import SourceFile


def existing(database: Database, state: State | None) -> State:
    """What is there.

    Raises:
        KnowledgeBaseError: Nothing.
    """
    if state is None:
        raise KnowledgeBaseError(
            f"There is no knowledge base at {database.place}: build one with 'ragweave index SOURCE --output URI'."
        )
    return state


def check_free(database: Database, state: State | None, *, overwrite: bool) -> None:
    """Check that a knowledge base may be built.

    Raises:
        KnowledgeBaseError: There is one, and ``overwrite`` is false.
    """
    if state is not None and not overwrite:
        raise occupied(database.place)


def build(
    database: Database,
    files: Sequence[SourceFile],
    *,
    encoder: TextEncoder,
    settings: Settings,
    overwrite: bool,
    resume: bool,
    progress: Progress,
) -> None:
    """Build a knowledge base; see `KnowledgeBase.build`."""
    _refuse_to_resume(database, resume=resume)
    with database.changing() as change:
        check_free(database, change.state, overwrite=overwrite)
        found, unreadable = fingerprints(files, strict=settings.strict, progress=progress)
        readable = [file for file in files if file.key in found]
        new = _write(change, readable, database, encoder, settings, frozenset(), progress, anew=True)
        skipped = (*unreadable, *new.reading.skipped)
        if not new.passages:
            raise SourceError(
                " ".join(skipped) or "The sources hold no text: give files with something in them."
            )
        record = ChangeRecord(
            kind="build", added=new.passages, duplicates=new.reading.duplicates, skipped=skipped
        )
        manifest = first_manifest(encoder, settings, record)
        sources = {file.key: found[file.key] for file in readable if file.source not in new.failed}
        progress.start("Indexing", None)
        _commit(change, database, manifest, new.passages, new.documents, sources=sources)


def add(
    database: Database,
    files: Sequence[SourceFile],
    *,
    encoder: TextEncoder,
    strict: bool,
    engine: Engine,
    resume: bool,
    progress: Progress,
) -> None:
    """Add what is new in sources, in place of what was read from them before; see `KnowledgeBase.add`."""
    _refuse_to_resume(database, resume=resume)
    with database.changing() as change:
        manifest = existing(database, change.state).manifest
        manifest.encoder.check(
            encoder, database.place
        )  # another writer may have been here since it was opened
        found, unreadable = fingerprints(files, strict=strict, progress=progress)
        old = change.sources()
        changed = changed_among(files, found, old)
        if not changed:
            nothing_done(unreadable, of_many=bool(found))
            return
        before = {old[file.key].source: file for file in changed if file.key in old}
        settings = Settings(
            chunking=manifest.chunking,
            kind=manifest.index.kind,
            parameters=manifest.index.parameters,
            strict=strict,
            language=manifest.language,
            engine=engine,
        )
        new = _write(change, changed, database, encoder, settings, before, progress, anew=False)
        kept = {source for source, file in before.items() if file.source in new.failed}
        gone = Gone(sources=set(before) - kept)
        passages, documents = change.counted(gone)
        skipped = (*unreadable, *new.reading.skipped)
        if not new.passages and not passages:
            nothing_done(list(skipped), of_many=len(found) > len(changed))
            return
        record = ChangeRecord(
            kind="add",
            added=new.passages,
            deleted=passages,
            duplicates=new.reading.duplicates,
            unchanged=len(found) - len(changed),
            skipped=skipped,
        )
        sources = {file.key: found[file.key] for file in changed if file.source not in new.failed}
        _commit(
            change,
            database,
            renewed(manifest, record),
            manifest.passages + new.passages - passages,
            manifest.documents + new.documents - documents,
            sources=sources,
            gone=gone,
        )


def delete(database: Database, *, ids: Sequence[str], sources: Sequence[str]) -> None:
    """Delete passages, documents and sources; see `KnowledgeBase.delete`."""
    with database.changing() as change:
        manifest = existing(database, change.state).manifest
        rows: set[int] = set()
        for name in ids:
            own = database.rows_with("id", name) or database.rows_with("document_id", name)
            if not own:
                raise nothing_called(name, database.place)
            rows.update(own)
        known = change.sources()
        chosen = named_by(sources, known, database.place)
        forgotten = [key for key, record in known.items() if record.source in chosen]
        gone = Gone(sources=chosen, rows=rows, forgotten=forgotten)
        passages, documents = change.counted(gone)
        _commit(
            change,
            database,
            renewed(manifest, ChangeRecord(kind="delete", deleted=passages)),
            manifest.passages - passages,
            manifest.documents - documents,
            gone=gone,
        )


def compact(database: Database, *, progress: Progress) -> None:
    """Choose the index anew and give back the room of what was deleted; see `KnowledgeBase.compact`."""
    with database.changing() as change:
        manifest = existing(database, change.state).manifest
        progress.start("Indexing", None)
        new = renewed(manifest, ChangeRecord(kind="compact"))
        _commit(change, database, new, manifest.passages, manifest.documents)
    progress.start("Compacting", None)
    database.tidy()


@dataclass(frozen=True, slots=True)
class _New:
    """Passages that were written.

    Attributes:
        passages: How many.
        documents: Of how many documents.
        reading: What reading found.
    """

    passages: int
    documents: int
    reading: Reading

    @property
    def failed(self) -> frozenset[str]:
        """Sources that could not be read."""
        return frozenset(self.reading.failed)


class _NewHashes:
    """Satisfies `KnownHashes`: new is what neither the database nor the change has yet.

    Args:
        change: The change.
        replaced: Sources whose passages in the database do not count.
    """

    def __init__(self, change: Change, replaced: Collection[str]) -> None:
        self._change, self._replaced, self._seen = change, replaced, SeenHashes()

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Add M hashes; which of them are new, (M,)."""
        new = self._seen.add(hashes)
        new[new] = ~self._change.known(hashes[new], self._replaced)
        return new


def _write(
    change: Change,
    files: Sequence[SourceFile],
    database: Database,
    encoder: TextEncoder,
    settings: Settings,
    replaced: Collection[str],
    progress: Progress,
    *,
    anew: bool,
) -> _New:
    """Read, embed and write files, a shard at a time.

    Raises:
        SourceError: A document's id is taken by another source, or, with ``strict``, a source cannot be read.
    """
    change.begin(dimension=encoder.dimension, words=settings.language is not None, anew=anew)
    analyzer = None if settings.language is None else Analyzer(settings.language)
    seen: KnownHashes = SeenHashes() if anew else _NewHashes(change, replaced)
    reading = Reading()
    hashes: list[NDArray[np.uint64]] = []
    documents: dict[str, set[str]] = {}
    waiting: deque[tuple[list[Passage], NDArray[np.uint64]]] = deque()

    def checked() -> Iterator[list[Passage]]:
        """Shards on their way to be embedded, some of them ahead of those that are written."""
        for shard in read_shards(files, encoder, settings, seen, reading, hashes, NoProgress()):
            own = hashes.pop()
            if not shard:
                continue
            names = {passage.document_id for passage in shard}
            taken = None if anew else change.document_among(names, replaced)
            if taken:
                raise id_taken(*taken, database.place)
            change.check(shard)
            waiting.append((shard, own))
            yield shard

    progress.start("Reading and embedding", None)
    for vectors in settings.engine.embed(checked(), encoder, progress):
        shard, own = waiting.popleft()
        words = (
            None
            if analyzer is None
            else [analyzer.words(f"{passage.title}\n{passage.text}") for passage in shard]
        )
        change.insert(Written(shard, own, vectors, words))
        for passage in shard:
            documents.setdefault(passage.source, set()).add(passage.document_id)
    dropped = change.discard(reading.failed) if reading.failed else 0
    readable = [names for source, names in documents.items() if source not in set(reading.failed)]
    return _New(reading.passages - dropped, sum(map(len, readable)), reading)


def _commit(
    change: Change,
    database: Database,
    manifest: Manifest,
    passages: int,
    documents: int,
    *,
    gone: Gone | None = None,
    sources: dict[str, SourceRecord] | None = None,
) -> None:
    """Put a change in force after which there are so many passages and documents."""
    # Another index means that searches wait: it is chosen where that is to be expected.
    index = (
        kinds.current(manifest)
        if manifest.change.kind in {"add", "delete"}
        else kinds.chosen(manifest.index.kind, passages, manifest.dimension, database.most_indexed)
    )
    segment = SegmentRecord(
        name="passages",
        rows=passages,
        passages=passages,
        documents=documents,
        factory=kinds.FACTORY[index],
        recall=1.0 if index == "flat" else None,
        files={},
    )
    change.commit(
        replace(manifest, segments=(segment,)), index=index, gone=gone or Gone(), sources=sources or {}
    )


def _refuse_to_resume(database: Database, *, resume: bool) -> None:
    if resume:
        raise ConfigurationError(
            f"{database.place} is a database, where nothing of an interrupted change is kept: run the command "
            "without --resume."
        )
