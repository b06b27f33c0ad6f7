"""What a version of a knowledge base holds, and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ragweave.errors import EncoderMismatchError, KnowledgeBaseError
from ragweave.knowledge.ingest_settings import Chunking

if TYPE_CHECKING:
    from ragweave.encoders.text_encoder import TextEncoder

FORMAT_VERSION = 3
"""Raised whenever an older ragweave could not read what a newer one writes."""

READABLE = frozenset({2, 3})
"""The formats that are read; of the second, whatever came later is absent."""

_T = TypeVar("_T")
_AGAIN = "build the knowledge base again with --overwrite."


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    """The encoder that embedded the passages.

    Attributes:
        name: The name or path it was loaded by.
        fingerprint: Hash of its weights, pooling and normalisation.
        pooling: How token states become a vector.
        normalize: Whether vectors have length 1.
        max_length: The most tokens it reads; ``None`` for no bound.
    """

    name: str
    fingerprint: str
    pooling: str
    normalize: bool
    max_length: int | None

    def check(self, encoder: TextEncoder, place: Path | str) -> None:
        """Check that an encoder is this one.

        Args:
            encoder: The encoder.
            place: Where the knowledge base is, for the message.

        Raises:
            EncoderMismatchError: It is not.
        """
        if encoder.fingerprint != self.fingerprint:
            raise EncoderMismatchError(
                f"The knowledge base at {place} was embedded by the encoder {self.name} ({self.pooling}, "
                f"fingerprint {self.fingerprint[:12]}), but this is {encoder.name} ({encoder.pooling}, "
                f"fingerprint {encoder.fingerprint[:12]}): use the first, or build the knowledge base again "
                "with the second."
            )


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """How the vectors are searched.

    Attributes:
        kind: As it was asked for: ``"auto"``, ``"flat"``, ``"hnsw"``, ``"ivfpq"``, ``"sq8"`` or FAISS' own words.
        metric: What it compares by.
        parameters: Settings of the search, such as ``nprobe``.
    """

    kind: str
    metric: str
    parameters: dict[str, int]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file as it was written.

    Attributes:
        bytes: Its size.
        sha256: Its hash.
    """

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Measure a file."""
        with path.open("rb") as file:
            return cls(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One segment as a version sees it.

    Attributes:
        name: Its name.
        rows: How many passages were written into it.
        passages: How many of them are still there.
        documents: How many documents those are of.
        factory: FAISS' words for its index; ``"Flat"`` where every vector is compared.
        recall: Share of the ten nearest passages that the index finds, measured when it was built; ``None`` where it
            was not, as in databases.
        files: Its files by their names.
    """

    name: str
    rows: int
    passages: int
    documents: int
    factory: str
    recall: float | None
    files: dict[str, FileRecord]


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """What was done to make a version.

    Attributes:
        kind: ``"build"``, ``"add"``, ``"delete"`` or ``"compact"``.
        added: How many passages were added.
        deleted: How many were deleted, those of sources that were replaced among them.
        duplicates: How many were left out since their title and text were there already.
        unchanged: How many sources were left alone since their content was there already.
        skipped: Sentences that say which sources could not be read, and why.
    """

    kind: str
    added: int = 0
    deleted: int = 0
    duplicates: int = 0
    unchanged: int = 0
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a reader has to know about a version.

    Attributes:
        ragweave_version: What wrote it.
        created: When, in UTC, as ISO 8601.
        change: What was done to make it.
        encoder: The encoder that embedded the passages.
        dimension: The size of a vector, D.
        index: How the vectors are searched.
        chunking: How documents are cut into passages.
        segments: What it is made of, in the order of its rows.
        files: The version's own files by their names, which are plain names in its folder.
        language: The language of the words that passages are searched by; ``None`` where there are vectors alone.
        format_version: The format of all this.
    """

    ragweave_version: str
    created: str
    change: ChangeRecord
    encoder: EncoderRecord
    dimension: int
    index: IndexRecord
    chunking: Chunking
    segments: tuple[SegmentRecord, ...]
    files: dict[str, FileRecord]
    language: str | None = None
    format_version: int = FORMAT_VERSION

    @property
    def passages(self) -> int:
        """How many passages there are, N."""
        return sum(segment.passages for segment in self.segments)

    @property
    def documents(self) -> int:
        """How many documents have at least one passage."""
        return sum(segment.documents for segment in self.segments)

    @property
    def rows(self) -> int:
        """How many rows there are, with those of passages that were deleted."""
        return sum(segment.rows for segment in self.segments)

    @property
    def recall(self) -> float | None:
        """The least recall of a segment; ``None`` where one was not measured."""
        measured = [segment.recall for segment in self.segments if segment.recall is not None]
        return min(measured, default=1.0) if len(measured) == len(self.segments) else None

    def summary(self) -> dict[str, Any]:
        """The main facts, in values that JSON can hold."""
        return {
            "created": self.created,
            "documents": self.documents,
            "passages": self.passages,
            "chunking": self.chunking.kind,
            "words": self.chunking.words,
            "tokens": self.chunking.tokens,
            "overlap": self.chunking.overlap,
            "encoder": self.encoder.name,
            "fingerprint": self.encoder.fingerprint,
            "pooling": self.encoder.pooling,
            "normalize": self.encoder.normalize,
            "max_length": self.encoder.max_length,
            "dimension": self.dimension,
            "index": self.index.kind,
            "factory": ", ".join(dict.fromkeys(segment.factory for segment in self.segments)),
            "parameters": self.index.parameters,
            "language": self.language,
            "segments": len(self.segments),
            "recall": self.recall,
            "metric": self.index.metric,
        }

    @property
    def checksum(self) -> str:
        """Hash of all of it."""
        return hashlib.sha256(_canonical(self._content())).hexdigest()

    def to_json(self) -> str:
        """Write the manifest as JSON."""
        content = {**self._content(), "checksum": self.checksum}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def _content(self) -> dict[str, Any]:
        return {
            "format_version": self.format_version,
            "ragweave_version": self.ragweave_version,
            "created": self.created,
            "change": asdict(self.change),
            "encoder": asdict(self.encoder),
            "dimension": self.dimension,
            "index": asdict(self.index),
            "chunking": self.chunking.to_record(),
            **({} if self.language is None else {"lexical": {"language": self.language}}),
            "segments": [asdict(segment) for segment in self.segments],
            "files": {name: asdict(record) for name, record in self.files.items()},
        }

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read and check a manifest.

        Args:
            path: Its file.

        Returns:
            The manifest.

        Raises:
            KnowledgeBaseError: It is missing, damaged, or of a format that this ragweave does not know.
        """
        try:
            return cls.parse(path.read_bytes(), path)
        except OSError as error:
            raise KnowledgeBaseError(
                f"The manifest {path} cannot be read ({error.strerror}): {_AGAIN}"
            ) from error

    @classmethod
    def parse(cls, text: str | bytes, place: Path | str) -> Manifest:
        """Read and check what `to_json` wrote.

        Args:
            text: The JSON.
            place: Where it was found, for messages.

        Returns:
            The manifest.

        Raises:
            KnowledgeBaseError: It is damaged, or of a format that this ragweave does not know.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise KnowledgeBaseError(f"The manifest {place} is damaged ({error}): {_AGAIN}") from error
        found = content.get("format_version") if isinstance(content, dict) else None
        if isinstance(found, int) and found not in READABLE:
            raise KnowledgeBaseError(
                f"The knowledge base of the manifest {place} has format {found}, this ragweave reads formats "
                f"{', '.join(map(str, sorted(READABLE)))}: install the version of ragweave that wrote it, or {_AGAIN}"
            )
        try:
            manifest = cls._from_content(content)
            if content["checksum"] != manifest.checksum:
                raise ValueError("its checksum is another")
            return manifest
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KnowledgeBaseError(f"The manifest {place} is damaged ({error!r}): {_AGAIN}") from error

    @classmethod
    def _from_content(cls, content: dict[str, Any]) -> Manifest:
        encoder, index = content["encoder"], content["index"]
        max_length = encoder["max_length"]
        return cls(
            format_version=_count(content["format_version"]),
            ragweave_version=_typed(content["ragweave_version"], str),
            created=_typed(content["created"], str),
            change=_change(content["change"]),
            encoder=EncoderRecord(
                name=_typed(encoder["name"], str),
                fingerprint=_typed(encoder["fingerprint"], str),
                pooling=_typed(encoder["pooling"], str),
                normalize=_typed(encoder["normalize"], bool),
                max_length=None if max_length is None else _count(max_length),
            ),
            dimension=_count(content["dimension"]),
            index=IndexRecord(
                kind=_typed(index["kind"], str),
                metric=_typed(index["metric"], str),
                parameters={_typed(name, str): _count(value) for name, value in index["parameters"].items()},
            ),
            chunking=_chunking(content["chunking"]),
            segments=tuple(
                SegmentRecord(
                    name=_file_name(segment["name"]),
                    rows=_count(segment["rows"]),
                    passages=_count(segment["passages"]),
                    documents=_count(segment["documents"]),
                    factory=_typed(segment["factory"], str),
                    recall=None if segment["recall"] is None else _typed(segment["recall"], float),
                    files=_files(segment["files"]),
                )
                for segment in content["segments"]
            ),
            files=_files(content["files"]),
            language=_typed(content["lexical"]["language"], str) if "lexical" in content else None,
        )


def _chunking(content: dict[str, Any]) -> Chunking:
    tokens = content.get("tokens")
    return Chunking(
        kind=content.get("kind", "sentences"),
        words=_count(content["words"]),
        tokens=None if tokens is None else _count(tokens),
        overlap=_count(content.get("overlap", 0)),
    )


def _change(content: dict[str, Any]) -> ChangeRecord:
    numbers = {name: _count(content[name]) for name in ("added", "deleted", "duplicates", "unchanged")}
    skipped = tuple(_typed(sentence, str) for sentence in content["skipped"])
    return ChangeRecord(kind=_typed(content["kind"], str), skipped=skipped, **numbers)


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=False).encode("utf-8")


def _files(records: dict[str, Any]) -> dict[str, FileRecord]:
    return {
        _file_name(name): FileRecord(bytes=_count(record["bytes"]), sha256=_typed(record["sha256"], str))
        for name, record in records.items()
    }


def _typed(value: object, kind: Callable[..., _T]) -> _T:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    return value  # type: ignore[return-value]


def _count(value: object) -> int:
    if _typed(value, int) < 0:
        raise ValueError(f"{value!r} is below zero")
    return _typed(value, int)


def _file_name(name: str) -> str:
    """A name that cannot lead out of its folder."""
    if name in {"", ".", ".."} or any(character in name for character in "/\\:\0"):
        raise ValueError(f"{name!r} is not a plain file name")
    return name
