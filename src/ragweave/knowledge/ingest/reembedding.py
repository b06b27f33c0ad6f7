"""The same passages under another encoder: a knowledge base embedded anew, without reading its sources again."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge import store
from ragweave.knowledge.ingest.builder import Settings, check_output, finished
from ragweave.knowledge.ingest.changes import check_plan, copy_passages, first_manifest, keep_versions
from ragweave.knowledge.ingest.commit import prepared_segment, put_in_force
from ragweave.knowledge.ingest.transaction import making
from ragweave.knowledge.layout import Layout
from ragweave.knowledge.manifest import ChangeRecord
from ragweave.knowledge.snapshot import Snapshot

if TYPE_CHECKING:
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.ingest.engines import Engine
    from ragweave.knowledge.progress import Progress


def reembed(
    base: Snapshot,
    output: Path,
    *,
    encoder: TextEncoder,
    engine: Engine,
    keep: int | None,
    keep_named: Collection[str],
    resume: bool,
    progress: Progress,
) -> None:
    """Write all passages, as one segment, with the vectors of an encoder; see `KnowledgeBase.reembed`."""
    if not len(base):
        raise KnowledgeBaseError(f"The knowledge base at {base.path} is empty: there is nothing to embed.")
    check_output(Layout(output), overwrite=True)
    manifest = base.manifest
    settings = Settings(
        chunking=manifest.chunking,
        kind=manifest.index.kind,
        parameters=manifest.index.parameters,
        strict=True,
        language=manifest.language,
        engine=engine,
    )
    nothing = np.zeros(0, np.int64)
    with making(output, resume=resume) as layout:
        plan = {"encoder": encoder.fingerprint, "reembeds": manifest.checksum}
        check_plan(layout, plan, resume=resume)
        segment, copied = prepared_segment(layout), layout.work / "copied"
        if not copied.exists():
            segment.folder.mkdir(exist_ok=True)
            for path in (segment.passages, segment.hashes):
                path.unlink(missing_ok=True)  # of a run that was interrupted here
            copy_passages(base, segment)
            store.write_text(copied, "")
        begun = store.vectors_written(segment.vectors)
        progress.start("Embedding", len(base))
        progress.advance(begun)
        vectors = engine.embed(store.PassageTable(segment.passages).shards(begun), encoder, progress)
        store.write_vectors(segment.vectors, vectors, len(base), encoder.dimension, begun=begun)
        record = finished(segment, settings, nothing, progress, layout.work / "postings")
        change = ChangeRecord(kind="reembed", added=len(base))
        put_in_force(
            layout,
            first_manifest(encoder, settings, change),
            new=record,
            deleted=nothing,
            sources=base.sources,
        )
        if keep is not None:
            keep_versions(layout, keep, keep_named)


class _NotWantedError(Exception):
    """Ends the making of something that is not wanted."""


def discard_prepared(output: Path) -> None:
    """Remove what an interrupted `reembed` has left to be gone on with.

    Args:
        output: Where it was to write.

    Raises:
        KnowledgeBaseError: Another process is at work there, or it cannot be written.
    """
    # Making empties the place where it prepares, and leaves nothing of it where it fails at once.
    with suppress(_NotWantedError), making(output, resume=False):
        raise _NotWantedError
