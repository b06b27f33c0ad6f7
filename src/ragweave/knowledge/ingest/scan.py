"""Shared by the writers of folders and databases: comparing sources, making manifests, and errors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragweave import __version__
from ragweave.errors import KnowledgeBaseError, SourceError, SourceWarning
from ragweave.knowledge.ingest.loaders.loader import find_sources
from ragweave.knowledge.ingest.loaders.text import no_access, printable
from ragweave.knowledge.ingest_settings import DEFAULT_READING, IngestSettings, ReadSettings
from ragweave.knowledge.manifest import (
    FORMAT_VERSION,
    ChangeRecord,
    EncoderRecord,
    FileRecord,
    IndexRecord,
    Manifest,
    SegmentRecord,
    SparseRecord,
)
from ragweave.types import NoProgress, Progress, SourceChanges, SourceFile, SourceRecord, Sources

if TYPE_CHECKING:  # brings torch, which deleting and compacting do not need
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.ingest.builder import Engine, IngestReport

METRIC = "inner product"


@dataclass(frozen=True, slots=True)
class SourceScan:
    """Files compared with the sources of a knowledge base.

    Attributes:
        records: The records of all files that could be read, by key.
        changed: The files that are new, or whose content has changed.
        known: The sources of the knowledge base, by key.
        skipped: One sentence for each file that could not be read.
        ignored: The files that are not to be read, with the reason.
        gone: The known sources that no longer exist and are to be removed.
    """

    records: Sources
    changed: list[SourceFile]
    known: Sources
    skipped: list[str]
    ignored: dict[str, str]
    gone: Sources

    @property
    def unchanged(self) -> int:
        """Number of files that the knowledge base already has with this content."""
        return len(self.records) - len(self.changed)

    def all_skipped(self, report: IngestReport) -> tuple[str, ...]:
        """One sentence for each file that could not be read, by then or while the changed files were read."""
        return (*self.skipped, *report.skipped)

    def change(self, kind: str, report: IngestReport, counts: Mapping[str, Any]) -> ChangeRecord:
        """The record of the change, once the changed files have been read, with the counts of passages."""
        return ChangeRecord(
            kind=kind,
            **counts,
            unchanged=self.unchanged,
            skipped=self.all_skipped(report),
            read=len(self.read(report.failed)),
            ignored=self.ignored,
            removed=len(self.gone),
        )

    def changes(self) -> SourceChanges:
        """What is to be read and removed."""
        return SourceChanges(
            new=tuple(file.source for file in self.changed if file.key not in self.known),
            changed=tuple(file.source for file in self.changed if file.key in self.known),
            removed=tuple(record.source for record in self.gone.values()),
            skipped=tuple(self.skipped),
        )

    def read(self, failed: Collection[str]) -> Sources:
        """The records of the changed files, but for the sources that failed."""
        failed = set(failed)
        keys = (file.key for file in self.changed if file.source not in failed)
        return {key: self.records[key] for key in keys}

    def after(self, failed: Collection[str] = ()) -> Sources:
        """The sources of the knowledge base after the change."""
        remaining = {key: record for key, record in self.known.items() if key not in self.gone}
        return remaining | self.read(failed)

    def replaced(self, failed: Collection[str] = ()) -> set[str]:
        """The sources of the knowledge base that are gone or changed, but for files that failed."""
        changed = {self.known[key].source for key in self.read(failed) if key in self.known}
        return changed | {record.source for record in self.gone.values()}


def gone_sources(
    sources: Sequence[Path | SourceFile], files: Sequence[SourceFile], known: Sources
) -> Sources:
    """The known sources that were read from below sources, are not among their files, and no longer exist.

    Args:
        sources: Files, folders and glob patterns.
        files: The files that they have.
        known: The sources of the knowledge base.
    """
    present = {file.key for file in files}
    roots = [os.path.realpath(source) for source in sources if isinstance(source, Path)]
    return {
        key: record
        for key, record in known.items()
        if key not in present
        and not os.path.lexists(key)
        and any(fnmatch(key, root) or Path(key).is_relative_to(root) for root in roots)
    }


def compare_sources(
    sources: Sequence[Path | SourceFile], known: Sources, reading: ReadSettings
) -> SourceChanges:
    """How the files of sources differ from the sources of a knowledge base."""
    files = find_sources(sources, follow_links=reading.follow_links, allow_empty=True)
    gone = gone_sources(sources, files, known)
    return scan_sources(files, known, gone, strict=False, progress=NoProgress()).changes()


def scan_sources(
    files: Sequence[SourceFile],
    known: Sources,
    gone: Sources | None = None,
    *,
    strict: bool,
    progress: Progress,
) -> SourceScan:
    """Hash the content of files to find those that are new or differ from the known sources.

    Args:
        files: The files.
        known: The sources of the knowledge base.
        gone: Those of them that are to be removed.
        strict: Whether a file that cannot be read is an error.
        progress: Receives the progress.

    Raises:
        SourceError: With ``strict``, a file cannot be read.
    """
    records: Sources = {}
    changed: list[SourceFile] = []
    skipped: list[str] = []
    ignored = {file.source: file.ignored for file in files if file.ignored}
    files = [file for file in files if not file.ignored]
    progress.start("Looking for changes", len(files))
    for file in files:
        key = file.key  # looks links up
        try:
            record = records[key] = _fingerprint(file)
        except SourceError as error:
            if strict:
                raise
            skipped.append(printable(str(error)))
        else:
            if key not in known or known[key].sha256 != record.sha256:
                changed.append(file)
        progress.advance(1)
    return SourceScan(records, changed, known, skipped, ignored, gone or {})


def _fingerprint(file: SourceFile) -> SourceRecord:
    try:
        digest = FileRecord.of(file.path).sha256
    except OSError as error:
        raise no_access(file.path, error) from error
    return SourceRecord(source=file.source, sha256=digest)


def named_sources(patterns: Sequence[str], sources: Sources, path: Path | str) -> set[str]:
    """The sources that are a path, lie below it, or match it as a glob pattern such as ``notes/*.md``.

    Args:
        patterns: Paths and patterns.
        sources: The sources of the knowledge base.
        path: The knowledge base, for the message.

    Raises:
        KnowledgeBaseError: A pattern names no source.
    """
    named: set[str] = set()
    for pattern in patterns:
        # Keys are absolute, sources as the user named them, perhaps from another folder.
        absolute = Path(pattern).resolve()
        matches = {
            record.source
            for key, record in sources.items()
            if record.source.startswith(f"{pattern.rstrip('/')}/")
            or any(fnmatch(name, pattern) for name in (record.source, key))
            or fnmatch(key, str(absolute))
            or Path(key).is_relative_to(absolute)
        }
        if not matches:
            known = sorted({record.source for record in sources.values()})[:3]
            raise KnowledgeBaseError(
                f"Nothing in {path} was read from '{pattern}'; sources begin with {', '.join(known)}."
            )
        named |= matches
    return named


def report_skipped(skipped: Sequence[str], *, other_sources: bool) -> None:
    """Report sources that could not be read where no new version's manifest records them.

    Args:
        skipped: One sentence for each of them.
        other_sources: Whether other sources could be read: then the user is warned, else it is an error.

    Raises:
        SourceError: No source could be read.
    """
    if skipped and not other_sources:
        raise SourceError(" ".join(skipped))
    for sentence in skipped:
        warnings.warn(f"skipped: {sentence}", SourceWarning, stacklevel=4)


def already_exists(output: Path | str) -> KnowledgeBaseError:
    """The error for a build that would replace a knowledge base without ``overwrite``."""
    return KnowledgeBaseError(
        f"There is a knowledge base at {output} already: use 'ragweave add' to add to it, add --overwrite "
        "(overwrite=True) to replace its content, or choose another output."
    )


def no_text(skipped: Sequence[str]) -> SourceError:
    """The error for a build from sources without text."""
    return SourceError(" ".join(skipped) or "The sources hold no text: give files with something in them.")


def unknown_id(name: str, place: Path | str) -> KnowledgeBaseError:
    """The error for the deletion of something that does not exist."""
    return KnowledgeBaseError(
        f"There is no passage or document '{name}' in {place}: look at the ids in 'ragweave ask --json'."
    )


def id_taken(name: str, source: str, place: Path | str) -> SourceError:
    """The error for a document with the id of another."""
    return SourceError(
        f"A document with the id '{name}' is in the knowledge base already, from {source}: delete that first "
        f"('ragweave delete {place} --id {name}'), or give the folder that holds both files as the source."
    )


def settings_of(
    manifest: Manifest,
    *,
    strict: bool = True,
    engine: Engine | None = None,
    flat_up_to: int = 0,
    reading: ReadSettings = DEFAULT_READING,
) -> IngestSettings:
    """The settings that a knowledge base was built with, for a change of it."""
    index = manifest.index
    return IngestSettings(
        manifest.chunking,
        index.kind,
        index.parameters,
        manifest.language,
        strict,
        engine,
        flat_up_to,
        manifest.analyzer,
        reading,
        manifest.sparse,
    )


def first_manifest(encoder: TextEncoder, settings: IngestSettings, change: ChangeRecord) -> Manifest:
    """The manifest of a new knowledge base, without its segments and files."""
    return Manifest(
        ragweave_version=__version__,
        created=_now(),
        change=change,
        # An encoder that is no `TextEncoder` may lack what has a default.
        encoder=EncoderRecord(
            **{
                field.name: getattr(encoder, field.name)
                for field in fields(EncoderRecord)
                if hasattr(encoder, field.name)
            }
        ),
        dimension=encoder.dimension,
        index=IndexRecord(kind=settings.index_kind, metric=METRIC, parameters=settings.index_parameters),
        chunking=settings.chunking,
        segments=(),
        files={},
        language=settings.language,
        analyzer=settings.analyzer,
        sparse=None
        if settings.sparse is None
        else SparseRecord(settings.sparse.name, settings.sparse.fingerprint),
    )


def next_manifest(manifest: Manifest, change: ChangeRecord, segments: tuple[SegmentRecord, ...]) -> Manifest:
    """The manifest after another change, with the segments that stay, and without the version's files."""
    return replace(
        manifest,
        ragweave_version=__version__,
        created=_now(),
        change=change,
        segments=segments,
        files={},
        format_version=FORMAT_VERSION,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
