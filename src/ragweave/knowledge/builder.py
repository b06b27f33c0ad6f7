"""Building a version of a knowledge base beside its place, and moving it there once it is whole.

A crash at any byte, ctrl-C or a full disk leave what was there before: until the last step everything is
in a hidden folder next to the output, on the same file system, and the last step is one rename.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ragweave.errors import KnowledgeBaseError, SourceError
from ragweave.knowledge import store
from ragweave.knowledge.chunking import chunk
from ragweave.knowledge.layout import Layout, VersionLayout, sync_folder
from ragweave.knowledge.manifest import EncoderRecord, FileRecord, IndexRecord, Manifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ragweave.encoding import TextEncoder
    from ragweave.knowledge.passages import Document, Passage
    from ragweave.knowledge.progress import Progress

_FIRST = "000001"


@dataclass(slots=True)
class _Counts:
    """What went into a version."""

    documents: int = 0
    passages: int = 0


def check_output(output: Path, *, overwrite: bool) -> None:
    """Check, before any work is done, that a knowledge base may be written to a place.

    Args:
        output: The folder of the knowledge base.
        overwrite: Whether one that is there gets a new version.

    Raises:
        KnowledgeBaseError: A knowledge base is there and ``overwrite`` is false, or something else is there.
    """
    if Layout(output).is_knowledge_base():
        if not overwrite:
            raise KnowledgeBaseError(
                f"There is a knowledge base at {output} already: add --overwrite (overwrite=True) to replace "
                "its content, or choose another output."
            )
    elif output.is_dir():
        if any(output.iterdir()):
            raise KnowledgeBaseError(
                f"The folder {output} holds other files and is not a knowledge base: choose another output."
            )
    elif output.exists() or output.is_symlink():
        raise KnowledgeBaseError(f"{output} is a file, not a folder: choose another output.")


def build(
    documents: Iterable[Document],
    output: Path,
    *,
    encoder: TextEncoder,
    words: int,
    overwrite: bool,
    progress: Progress,
) -> None:
    """Build a knowledge base, or the next version of one.

    Args:
        documents: What to put into it.
        output: Its folder.
        encoder: What embeds the passages.
        words: About how many words a passage has.
        overwrite: Whether a knowledge base that is there gets a new version.
        progress: Hears how far it is.

    Raises:
        KnowledgeBaseError: The place is taken, or cannot be written.
        SourceError: A source cannot be read, or there is no text in any.
    """
    check_output(output, overwrite=overwrite)
    # A link to a folder stays a link: what it leads to is replaced.
    output = output.resolve()
    try:
        with _workshop(output) as workshop:
            _write_version(workshop.version(_FIRST), documents, encoder, words, progress)
            if Layout(output).is_knowledge_base():
                _add_version(workshop.version(_FIRST), Layout(output))
            else:
                workshop.write_current(_FIRST)
                sync_folder(workshop.versions)
                workshop.root.rename(output)
                sync_folder(output.parent)
    except OSError as error:
        raise KnowledgeBaseError(
            f"The knowledge base could not be written to {output} ({error.strerror or error}): free some "
            "space, check the folder's permissions, or choose another output. Nothing was changed there."
        ) from error


@contextmanager
def _workshop(output: Path) -> Iterator[Layout]:
    """Make a hidden folder beside the output, and remove it whatever happens."""
    missing = [folder for folder in output.parents if not folder.exists()]
    folder: Path | None = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.building-", dir=output.parent))
        folder.chmod(0o777 & ~_umask())  # mkdtemp makes it for its owner alone
        workshop = Layout(folder)
        workshop.version(_FIRST).folder.mkdir(parents=True)
        yield workshop
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in missing:
            # Goes only where nothing was put into it, that is, where building failed.
            if not any(parent.iterdir() if parent.is_dir() else ["gone"]):
                parent.rmdir()


def _umask() -> int:
    """The process' mask for new files, which can be read only by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _add_version(built: VersionLayout, target: Layout) -> None:
    """Move a version into a knowledge base and put it in force."""
    name = target.next_version()
    built.folder.rename(target.version(name).folder)
    try:
        sync_folder(target.versions)
        target.write_current(name)
    except BaseException:
        # The pointer may have been replaced before the failure; only what it does not name may go.
        if target.current.read_text(encoding="ascii", errors="replace").strip() != name:
            shutil.rmtree(target.version(name).folder, ignore_errors=True)
        raise


def _write_version(
    version: VersionLayout,
    documents: Iterable[Document],
    encoder: TextEncoder,
    words: int,
    progress: Progress,
) -> None:
    """Write every file of a version, the manifest last."""
    from ragweave import __version__

    counts = _Counts()
    progress.start("Reading", None)
    store.write_passages(version.passages, _shards(documents, words, counts, progress))
    if not counts.passages:
        raise SourceError("The sources hold no text: give files with something in them.")
    progress.start("Embedding", counts.passages)
    vectors = _vectors(store.PassageTable(version.passages), encoder, progress)
    store.write_vectors(version.vectors, vectors, counts.passages, encoder.dimension)
    progress.start("Indexing", None)
    store.write_index(version.index, store.read_vectors(version.vectors))
    manifest = Manifest(
        ragweave_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        encoder=EncoderRecord(
            name=encoder.name,
            fingerprint=encoder.fingerprint,
            pooling=encoder.pooling,
            normalize=encoder.normalize,
            max_length=encoder.max_length,
        ),
        dimension=encoder.dimension,
        index=IndexRecord(kind="flat", metric="inner product"),
        words=words,
        documents=counts.documents,
        passages=counts.passages,
        files={path.name: FileRecord.of(path) for path in version.data},
    )
    store.write_text(version.manifest, manifest.to_json())
    sync_folder(version.folder)


def _shards(
    documents: Iterable[Document], words: int, counts: _Counts, progress: Progress
) -> Iterator[list[Passage]]:
    """Cut documents into passages and yield these in shards, counting both."""
    shard: list[Passage] = []
    for document in documents:
        passages = chunk(document, words=words)
        counts.documents += bool(passages)
        counts.passages += len(passages)
        shard.extend(passages)
        while len(shard) >= store.SHARD:
            yield shard[: store.SHARD]
            shard = shard[store.SHARD :]
        progress.advance(1)
    if shard:
        yield shard


def _vectors(
    table: store.PassageTable, encoder: TextEncoder, progress: Progress
) -> Iterator[NDArray[np.float32]]:
    """Yield the vectors of the passages, shard by shard, each of shape (any, D)."""
    for shard in table.shards():
        yield encoder.encode(
            [passage.text for passage in shard],
            titles=[passage.title for passage in shard],
            progress=progress.advance,
        )
