"""Computes and commits a change to the passages, copies and segments of a knowledge base in a folder.

Every addition writes a segment. When it is committed, small segments before it are merged into it, as in a
log-structured merge tree: a segment keeps more than twice as many passages as the next, so that there are about as
many segments as the number of passages has binary digits, and a passage is copied about as often.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ragweave.knowledge import store
from ragweave.knowledge.ingest.builder import StagedSegment, merge_segments
from ragweave.knowledge.ingest.scan import settings_of
from ragweave.knowledge.ingest.transaction import commit, merged_segment, staged_segment
from ragweave.knowledge.layout import Layout
from ragweave.knowledge.manifest import Manifest, SegmentRecord
from ragweave.knowledge.snapshot import NO_COPIES, Segment, Snapshot
from ragweave.knowledge.vector_index import AUTO_FLAT, FLAT, least_recall
from ragweave.types import NoProgress, Passage, Sources

NO_ROWS: NDArray[np.int64] = np.zeros(0, np.int64)


def first_to_merge(records: Sequence[SegmentRecord]) -> int:
    """The number of the first segment to merge with all later ones; the last one if none are merged."""
    first = len(records) - 1
    size = 0
    for number in reversed(range(len(records))):
        record = records[number]
        # A segment with an index is not merged: building an index for the merged segment takes minutes.
        if record.factory != FLAT or size + record.passages > AUTO_FLAT:
            break
        if number < len(records) - 1 and record.passages > 2 * size:
            break
        first, size = number, size + record.passages
    return first


class FolderChange:
    """A change of passages: one that loses its source stays for its first copy, or is deleted if it has none.

    ``current`` is ``None`` for a first build, ``built`` for a deletion. ``lost`` are the rows of the current version
    whose source or id is removed; ``lost_copies`` says the same of each of its copies, (M,).
    """

    def __init__(
        self,
        current: Snapshot | None,
        built: StagedSegment | None,
        lost: NDArray[np.int64] = NO_ROWS,
        lost_copies: NDArray[np.bool_] | None = None,
    ) -> None:
        self._current, self._record = current, None if built is None else built.record
        start = 0 if current is None else current.manifest.rows
        self._tables: list[tuple[store.PassageTable, NDArray[np.int64]]] = []
        copy_rows, fresh = NO_COPIES, 0
        if built is not None:
            # First, so that a passage which a changed source still holds stays with that source.
            fresh = len(built.positions)
            self._tables.append((built.copies, built.positions))
            copy_rows = np.stack([_rows_of_copies(current, built, start), np.zeros(fresh, np.int64)], axis=1)
            if built.record is not None:
                lost = np.concatenate([lost, built.discarded + start])
        if current is not None:
            kept = np.flatnonzero(~lost_copies) if lost_copies is not None else NO_ROWS
            self._tables.append((current.copies.table, kept))
            pairs = np.stack([current.copies.rows, current.copies.current], axis=1).astype(np.int64)
            copy_rows = np.concatenate([copy_rows, pairs[kept]])
        candidates = np.flatnonzero(np.isin(copy_rows[:, 0], lost))
        heirs = candidates[np.unique(copy_rows[candidates, 0], return_index=True)[1]]
        copy_rows[heirs, 1] = 1
        self._copy_rows, heir_rows = copy_rows, copy_rows[heirs, 0]
        deleted = np.setdiff1d(lost, heir_rows)
        self._lost, self._deleted = lost, deleted if current is None else np.union1d(current.deleted, deleted)
        # All passages of a changed source count as deleted and added, even those that stay in their rows.
        renewed = int(((heirs < fresh) & (heir_rows < start)).sum())
        written = 0 if self._record is None else self._record.rows
        self.counts: dict[str, Any] = {
            "added": written - int((deleted >= start).sum()) + renewed,
            "deleted": int((deleted < start).sum()) + renewed,
            "duplicates": fresh - int((heirs < fresh).sum()),
            "kept": int((heirs >= fresh).sum()),
        }

    def commit(self, layout: Layout, manifest: Manifest, sources: Sources) -> None:
        """Commit the change with a manifest that lacks the segments."""
        opened = [] if self._current is None else self._current.segments
        records = [*(part.record for part in opened), *([] if self._record is None else [self._record])]
        starts = np.cumsum([0, *(record.rows for record in records)])

        @cache
        def segment(number: int) -> Segment:
            """A segment of the current version, or the staged one, which few changes need to open."""
            if number < len(opened):
                return opened[number]
            return Segment(staged_segment(layout), records[number], manifest)

        deleted = [
            self._deleted[first:last] for first, last in pairwise(np.searchsorted(self._deleted, starts))
        ]
        is_current = self._copy_rows[:, 1] > 0
        renamed = self._copy_rows[is_current, 0]
        names = [copy.document_id for shard in self._shards(is_current) for copy in shard]
        new_ids = np.array(names, dtype=object)

        def documents(numbers: Sequence[int]) -> int:
            """How many documents have live passages in segments; counted by Arrow, as there may be millions."""
            chunks: list[pa.Array] = []
            for number in numbers:
                start, end = starts[number : number + 2]
                inside = (start <= renamed) & (renamed < end)
                excluded = np.concatenate([deleted[number], renamed[inside]]) - start
                chunks += segment(number).table.column("document_id", excluded).chunks
                chunks.append(pa.array(new_ids[inside], pa.string()))
            return int(pc.count_distinct(pa.chunked_array(chunks, pa.string())).as_py())

        for number, record in enumerate(records):
            if ((self._lost >= starts[number]) & (self._lost < starts[number + 1])).any():
                passages = record.rows - len(deleted[number])
                records[number] = replace(record, passages=passages, documents=documents([number]))
                if self._record is None or number < len(records) - 1:
                    inside, least = deleted[number] - starts[number], least_recall(manifest.index.kind)
                    records[number] = segment(number).measured_without(inside, records[number], least=least)
        staged, first = staged_segment(layout), first_to_merge(records)
        if self._record is not None and first < len(records) - 1:
            staged, ends = merged_segment(layout), starts[first:]
            rows = [
                np.setdiff1d(np.arange(start, end), deleted_rows, assume_unique=True)
                for (start, end), deleted_rows in zip(pairwise(ends), deleted[first:], strict=True)
            ]
            numbers = range(first, len(records))
            merged = self._merge(layout, manifest, [*map(segment, numbers)], rows, ends)
            records[first:] = [replace(merged, documents=documents(numbers))]
        commit(
            layout,
            replace(manifest, segments=tuple(records if self._record is None else records[:-1])),
            new=None if self._record is None else records[-1],
            deleted=self._deleted,
            sources=sources,
            copies=self._shards(np.ones(len(is_current), dtype=bool)),
            copy_rows=self._copy_rows,
            staged=staged,
        )

    def _merge(
        self,
        layout: Layout,
        manifest: Manifest,
        segments: Sequence[Segment],
        rows: Sequence[NDArray[np.int64]],
        starts: NDArray[np.int64],
    ) -> SegmentRecord:
        """Stage the live rows of the last segments as one, and renumber references to them."""
        parts = [(part, live - start) for part, live, start in zip(segments, rows, starts, strict=False)]
        passages = (shard for part, live in parts for shard in part.table.take_shards(live))
        settings = settings_of(manifest, flat_up_to=AUTO_FLAT)
        record = merge_segments(layout, parts, passages, settings, NoProgress())
        inside = self._copy_rows[:, 0] >= starts[0]
        positions = np.searchsorted(np.concatenate(rows), self._copy_rows[inside, 0])
        self._copy_rows[inside, 0] = starts[0] + positions
        self._deleted = self._deleted[self._deleted < starts[0]]
        return record

    def _shards(self, chosen: NDArray[np.bool_]) -> Iterator[list[Passage]]:
        for table, positions in self._tables:
            selected, chosen = positions[chosen[: len(positions)]], chosen[len(positions) :]
            yield from table.take_shards(selected)


def _rows_of_copies(current: Snapshot | None, built: StagedSegment, start: int) -> NDArray[np.int64]:
    """The rows that the copies in a staged segment belong to; the segment's own rows begin at ``start``."""
    hashes, rows = [built.hashes], [np.arange(start, start + len(built.hashes))]
    for known, known_rows in () if current is None else current.live_hashes():
        chosen = np.isin(known, built.copy_hashes)
        hashes.append(known[chosen])
        rows.append(known_rows[chosen])
    all_hashes, all_rows = np.concatenate(hashes), np.concatenate(rows)
    order = np.argsort(all_hashes, kind="stable")
    return all_rows[order][np.searchsorted(all_hashes[order], built.copy_hashes)]
