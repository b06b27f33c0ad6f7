"""Compares the files of a knowledge base in a folder with what its manifest says of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ragweave.errors import KnowledgeBaseError, OpenFilesError
from ragweave.knowledge import store
from ragweave.knowledge.layout import Layout
from ragweave.knowledge.manifest import WITH_COPIES, FileRecord, Manifest

CHECKED_BYTES = 1 << 24
"""Files up to this size are compared with their hashes when they are opened, which takes about 10 ms for 16 MiB."""


def files_of(layout: Layout, version: str, manifest: Manifest) -> Iterator[tuple[Path, FileRecord]]:
    """The files of a version and its segments, and how they were written."""
    for path in layout.version(version).data[: 2 if manifest.format_version < WITH_COPIES else 4]:
        yield path, manifest.files.get(path.name, FileRecord(-1, ""))
    for segment in manifest.segments:
        for name, record in segment.files.items():
            yield layout.segment(segment.name).folder / name, record


def verify_folder(path: Path, version: str | None = None) -> tuple[int, int]:
    """Read every byte of a version, by default the current one, even if it is too damaged to be opened.

    Returns:
        How many files are intact, and how many bytes they have.

    Raises:
        KnowledgeBaseError: Files have changed or are missing. The message names all of them, and the newest other
            version that is intact.
    """
    layout = Layout(path)
    version = version or layout.read_current().version
    problems = _problems(layout, version)
    if not problems:
        manifest = Manifest.read(layout.version(version).manifest)
        records = [record for _, record in files_of(layout, version, manifest)]
        return len(records), sum(record.bytes for record in records)
    names = reversed([name for name in layout.version_names() if name != version])
    intact = next((name for name in names if not _problems(layout, name)), None)
    advice = (
        "No other version is intact: restore the files from a copy, or build it again with --overwrite."
        if intact is None
        else f"Version {intact} is intact: make it current with 'ragweave rollback {path} {intact}', or restore the "
        "files from a copy."
    )
    raise KnowledgeBaseError(
        f"Version {version} of the knowledge base at {path} is damaged: {'; '.join(problems)}. {advice}"
    )


def _problems(layout: Layout, version: str) -> list[str]:
    """What is wrong with the files of a version."""
    try:
        manifest = Manifest.read(layout.version(version).manifest)
    except OpenFilesError:
        raise
    except KnowledgeBaseError as error:
        return [str(error).partition(":")[0]]
    found = (problem_of(path, record, None) for path, record in files_of(layout, version, manifest))
    return [problem for problem in found if problem]


def problem_of(path: Path, record: FileRecord, checked_bytes: int | None) -> str | None:
    """What is wrong with a file, whose hash is computed up to a size; ``None`` for any size."""
    size = path.stat().st_size if path.is_file() else None
    if size != record.bytes:
        actual = "is missing" if size is None else f"has {size} bytes"
        expected = "is not in its manifest" if record.bytes < 0 else f"should have {record.bytes} bytes"
        return f"{path} {actual} and {expected}"
    if checked_bytes is not None and record.bytes > checked_bytes:
        return None
    try:
        return None if FileRecord.of(path) == record else f"{path} has changed since it was written"
    except OSError as error:
        raise store.damaged(path, error) from error
