"""What a version of a knowledge base holds, and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from ragweave.errors import KnowledgeBaseError

FORMAT_VERSION = 1
"""Raised whenever an older ragweave could not read what a newer one writes."""

_T = TypeVar("_T")


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


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """The index over the vectors.

    Attributes:
        kind: How it searches; ``"flat"`` compares with every vector.
        metric: What it compares by.
    """

    kind: str
    metric: str


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
class Manifest:
    """Everything a reader has to know about a version.

    Attributes:
        ragweave_version: What wrote it.
        created: When, in UTC, as ISO 8601.
        encoder: The encoder that embedded the passages.
        dimension: The size of a vector, D.
        index: The index over the vectors.
        words: About how many words a passage has.
        documents: How many documents have at least one passage.
        passages: How many passages there are, N.
        files: The files of the version by their names, which are plain names in its folder.
        format_version: The format of all this.
    """

    ragweave_version: str
    created: str
    encoder: EncoderRecord
    dimension: int
    index: IndexRecord
    words: int
    documents: int
    passages: int
    files: dict[str, FileRecord]
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Write the manifest as JSON."""
        content = {
            "format_version": self.format_version,
            "ragweave_version": self.ragweave_version,
            "created": self.created,
            "encoder": asdict(self.encoder),
            "dimension": self.dimension,
            "index": asdict(self.index),
            "chunking": {"words": self.words},
            "counts": {"documents": self.documents, "passages": self.passages},
            "files": {name: asdict(record) for name, record in self.files.items()},
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

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
        again = "build the knowledge base again with --overwrite."
        try:
            content = json.loads(path.read_bytes())
        except OSError as error:
            raise KnowledgeBaseError(
                f"The manifest {path} cannot be read ({error.strerror}): {again}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise KnowledgeBaseError(f"The manifest {path} is damaged ({error}): {again}") from error
        found = content.get("format_version") if isinstance(content, dict) else None
        if isinstance(found, int) and found != FORMAT_VERSION:
            raise KnowledgeBaseError(
                f"The knowledge base at {path.parent} has format {found}, this ragweave reads format "
                f"{FORMAT_VERSION}: install the version of ragweave that wrote it, or {again}"
            )
        try:
            return cls._from_content(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KnowledgeBaseError(f"The manifest {path} is damaged ({error!r}): {again}") from error

    @classmethod
    def _from_content(cls, content: dict[str, Any]) -> Manifest:
        encoder, index = content["encoder"], content["index"]
        files = {
            _file_name(name): FileRecord(bytes=_count(record["bytes"]), sha256=_typed(record["sha256"], str))
            for name, record in content["files"].items()
        }
        max_length = encoder["max_length"]
        return cls(
            format_version=_count(content["format_version"]),
            ragweave_version=_typed(content["ragweave_version"], str),
            created=_typed(content["created"], str),
            encoder=EncoderRecord(
                name=_typed(encoder["name"], str),
                fingerprint=_typed(encoder["fingerprint"], str),
                pooling=_typed(encoder["pooling"], str),
                normalize=_typed(encoder["normalize"], bool),
                max_length=None if max_length is None else _count(max_length),
            ),
            dimension=_count(content["dimension"]),
            index=IndexRecord(kind=_typed(index["kind"], str), metric=_typed(index["metric"], str)),
            words=_count(content["chunking"]["words"]),
            documents=_count(content["counts"]["documents"]),
            passages=_count(content["counts"]["passages"]),
            files=files,
        )


def _typed(value: object, kind: Callable[..., _T]) -> _T:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    return value  # type: ignore[return-value]


def _count(value: object) -> int:
    if _typed(value, int) < 0:
        raise ValueError(f"{value!r} is below zero")
    return _typed(value, int)


def _file_name(name: str) -> str:
    """A name that cannot lead out of the version's folder."""
    if name in {"", ".", ".."} or any(character in name for character in "/\\:\0"):
        raise ValueError(f"{name!r} is not a plain file name")
    return name
