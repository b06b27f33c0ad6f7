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
from ragweave.knowledge.ingest.loaders.loader import find_sources, is_pattern
from ragweave.knowledge.ingest.loaders.text import no_access, printable
from ragweave.knowledge.ingest_settings import ChangeOptions, IngestSettings, ReadSettings
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
from ragweave.types import SourceChanges, SourceFile, SourceRecord, Sources

if TYPE_CHECKING:  # brings torch, which deleting and compacting do not need
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.ingest.builder import IngestReport

METRIC = "inner product"


@dataclass(frozen=True, slots=True)
class SourceScan:
    """Files compared with the sources of a knowledge base."""

    records: Sources  # the records of all files that could be read, by key
    changed: list[SourceFile]  # the files that are new, or whose content has changed
    known: Sources  # the sources of the knowledge base, by key
    skipped: list[str]  # one sentence for each file that could not be read
    ignored: dict[str, str]  # the files that are not to be read, with the reason
    missing: Sources  # the known sources that no longer exist and are to be removed

    @property
    def unchanged(self) -> int:
        """Number of files that the knowledge base already has with this content."""
        return len(self.records) - len(self.changed)

    def all_skipped(self, report: IngestReport) -> tuple[str, ...]:
        """One sentence for each file that could not be read, when hashing or when reading the changed files."""
        return (*self.skipped, *report.skipped)

    def change(self, kind: str, report: IngestReport, counts: Mapping[str, Any]) -> ChangeRecord:
        """The record of the change, once the changed files have been read, with the counts of passages."""
        return ChangeRecord(
            kind=kind,
            **counts,
            unchanged=self.unchanged,
            skipped=self.all_skipped(report),
            read=len(self.read(report.failed)),
            without_text=report.without_text,
            ignored=self.ignored,
            removed=len(self.missing),
        )

    def changes(self) -> SourceChanges:
        """The sources to read and to remove."""
        return SourceChanges(
            new=tuple(file.source for file in self.changed if file.key not in self.known),
            changed=tuple(file.source for file in self.changed if file.key in self.known),
            removed=tuple(record.source for record in self.missing.values()),
            skipped=tuple(self.skipped),
        )

    def read(self, failed: Collection[str]) -> Sources:
        """The records of the changed files, except the sources that failed."""
        failed = set(failed)
        keys = (file.key for file in self.changed if file.source not in failed)
        return {key: self.records[key] for key in keys}

    def after(self, failed: Collection[str] = ()) -> Sources:
        """The sources of the knowledge base after the change."""
        remaining = {key: record for key, record in self.known.items() if key not in self.missing}
        return remaining | self.read(failed)

    def replaced(self, failed: Collection[str] = ()) -> set[str]:
        """The sources of the knowledge base that are missing or changed, except files that failed."""
        changed = {self.known[key].source for key in self.read(failed) if key in self.known}
        return changed | {record.source for record in self.missing.values()}


def missing_sources(
    sources: Sequence[Path | SourceFile], files: Sequence[SourceFile], known: Sources
) -> Sources:
    """The known sources below ``sources`` that are not among their files, and no longer exist."""
    present = {file.key for file in files}
    paths = [source for source in sources if isinstance(source, Path)]
    roots = [os.path.realpath(path) for path in paths]
    patterns = [os.path.realpath(path) for path in paths if is_pattern(path)]
    return {
        key: record
        for key, record in known.items()
        if key not in present
        and not os.path.lexists(key)
        and (
            any(Path(key).is_relative_to(root) for root in roots)
            or any(_is_below(key, pattern) for pattern in patterns)
        )
    }


def _is_below(key: str, pattern: str) -> bool:
    """Whether a path, or a folder above it, matches a pattern as in `glob`, where only ``**`` crosses folders."""
    names = Path(key).parts
    lengths = {0}  # of the beginnings of names that match the parts of the pattern so far
    for part in Path(pattern).parts:
        if part == "**":
            lengths = {length for first in lengths for length in range(first, len(names) + 1)}
        else:
            lengths = {n + 1 for n in lengths if n < len(names) and fnmatch(names[n], part)}
    return bool(lengths)


def compare_sources(
    sources: Sequence[Path | SourceFile], known: Sources, reading: ReadSettings
) -> SourceChanges:
    """Compare the files of sources with the sources of a knowledge base."""
    files = find_sources(sources, follow_links=reading.follow_links, allow_empty=True)
    missing = missing_sources(sources, files, known)
    return scan_sources(files, known, missing, ChangeOptions()).changes()


def scan_sources(
    files: Sequence[SourceFile], known: Sources, missing: Sources, options: ChangeOptions
) -> SourceScan:
    """Hash files to find those that are new or differ from the known sources; those ``missing`` are to be removed."""
    records: Sources = {}
    changed: list[SourceFile] = []
    skipped: list[str] = []
    ignored = {file.source: file.ignored for file in files if file.ignored}
    files = [file for file in files if not file.ignored]
    options.progress.start("Looking for changes", len(files))
    for file in files:
        key = file.key  # looks links up
        try:
            record = records[key] = _fingerprint(file)
        except SourceError as error:
            if options.strict:
                raise
            skipped.append(printable(str(error)))
        else:
            if key not in known or known[key].sha256 != record.sha256:
                changed.append(file)
        options.progress.advance(1)
    return SourceScan(records, changed, known, skipped, ignored, missing)


def _fingerprint(file: SourceFile) -> SourceRecord:
    try:
        digest = FileRecord.of(file.path).sha256
    except OSError as error:
        raise no_access(file.path, error) from error
    return SourceRecord(source=file.source, sha256=digest)


def named_sources(patterns: Sequence[str], sources: Sources, path: Path | str) -> set[str]:
    """The sources that are a path or lie below it, or else match it as a pattern; matching none is an error."""
    named: set[str] = set()
    for pattern in patterns:
        # Keys are absolute, sources as the user named them, perhaps from another folder.
        absolute = Path(pattern).resolve()
        matches = {
            record.source
            for key, record in sources.items()
            if pattern in (record.source, key)
            or record.source.startswith(f"{pattern.rstrip('/')}/")
            or Path(key).is_relative_to(absolute)
        } or {
            record.source
            for key, record in sources.items()
            if _is_below(record.source, pattern) or _is_below(key, str(absolute))
        }
        if not matches:
            known = sorted({record.source for record in sources.values()})[:3]
            raise KnowledgeBaseError(
                f"Nothing in {path} was read from '{pattern}'; sources begin with {', '.join(known)}."
            )
        named |= matches
    return named


def report_skipped(skipped: Sequence[str], *, other_sources: bool) -> None:
    """Warn of sources that could not be read where no manifest records them; an error if none could be read."""
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


def unknown_id(name: str, location: Path | str) -> KnowledgeBaseError:
    """The error for the deletion of something that does not exist."""
    return KnowledgeBaseError(
        f"There is no passage or document '{name}' in {location}: look at the ids in 'ragweave ask --json'."
    )


def id_taken(name: str, source: str, location: Path | str) -> SourceError:
    """The error for a document with the id of another."""
    return SourceError(
        f"A document with the id '{name}' is in the knowledge base already, from {source}: delete that first "
        f"('ragweave delete {location} --id {name}'), or give the folder that holds both files as the source."
    )


def settings_of(manifest: Manifest, *, flat_up_to: int = 0) -> IngestSettings:
    """The settings that a knowledge base was built with, for a change of it."""
    index = manifest.index
    return IngestSettings(
        manifest.chunking, index.kind, index.parameters, manifest.language, manifest.sparse, flat_up_to
    )


def first_manifest(encoder: TextEncoder, settings: IngestSettings, change: ChangeRecord) -> Manifest:
    """The manifest of a new knowledge base, without its segments and files."""
    # An encoder that is not a `TextEncoder` may lack attributes that have a default.
    names = [field.name for field in fields(EncoderRecord) if hasattr(encoder, field.name)]
    sparse = settings.sparse
    return Manifest(
        ragweave_version=__version__,
        created=_now(),
        change=change,
        encoder=EncoderRecord(**{name: getattr(encoder, name) for name in names}),
        dimension=encoder.dimension,
        index=IndexRecord(kind=settings.index_kind, metric=METRIC, parameters=settings.index_parameters),
        chunking=settings.chunking,
        segments=(),
        files={},
        language=settings.language,
        sparse=None if sparse is None else SparseRecord(sparse.name, sparse.fingerprint),
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
