"""The manifest: what a version of a knowledge base holds, and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import cache, cached_property
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from ragweave.errors import EncoderMismatchError, KnowledgeBaseError, too_many_files
from ragweave.knowledge.ingest_settings import Chunking

if TYPE_CHECKING:  # brings torch
    from ragweave.encoders.sparse_encoder import SparseEncoder
    from ragweave.encoders.text_encoder import TextEncoder

FORMAT_VERSION = 8  # raised when an older ragweave could not read what a newer one writes

ANALYZER_VERSION = 2
"""The rules by which text is split into words; 1 separated combining marks from their letters."""

EXACT = {"5": 1.0, "50": 1.0, "100": 1.0}  # the recall of comparing all vectors, by K

COMPACT_SHARE, COMPACT_ROWS = 0.2, 1000
"""The share and number of deleted rows from which a folder should be compacted."""

_REBUILD = "build the knowledge base again with --overwrite."


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    """The encoder that embedded the passages."""

    name: str  # the name or path it was loaded from
    fingerprint: str  # hash of its weights, pooling, normalisation, prompt of passages and size of vectors
    pooling: str  # how token states become a vector
    normalize: bool  # whether vectors have length 1
    max_length: int | None  # the maximum number of tokens it reads; ``None`` for no limit
    question_prompt: str = ""  # the text before questions
    passage_prompt: str = ""  # the text before passages
    dim: int | None = None  # how many dimensions of its vectors are kept; ``None`` for all

    def load(self, name: str | Path | None = None, *, device: str | None = None) -> TextEncoder:
        """Load the encoder by its name, or by its ``name`` on this machine; see `TextEncoder.from_pretrained`."""
        from ragweave.encoders.text_encoder import TextEncoder

        settings = {key: value for key, value in asdict(self).items() if key not in ("name", "fingerprint")}
        return TextEncoder.from_pretrained(name or self.name, device=device, **settings)

    def check(self, encoder: TextEncoder | Callable[[], TextEncoder], path: Path | str) -> TextEncoder:
        """Return an encoder, loaded if this is a function; raise `EncoderMismatchError` unless it is this one.

        The message names the knowledge base.
        """
        if callable(encoder):
            encoder = encoder()
        if encoder.fingerprint != self.fingerprint:
            raise EncoderMismatchError(
                f"The knowledge base at {path} was embedded by the encoder {self.name} ({self.pooling}, fingerprint "
                f"{self.fingerprint[:12]}), but this is {encoder.name} ({encoder.pooling}, fingerprint "
                f"{encoder.fingerprint[:12]}). Use the first, or build the knowledge base again with the second."
            )
        return encoder


@dataclass(frozen=True, slots=True)
class SparseRecord:
    """The encoder that weighs words, in place of BM25."""

    name: str  # the name or path it was loaded from
    fingerprint: str  # hash of what determines its weights

    def load(self) -> SparseEncoder:
        """Load the encoder; raises `EncoderMismatchError` if it is another one now."""
        from ragweave.encoders.sparse_encoder import SparseEncoder

        encoder = SparseEncoder.from_pretrained(self.name)
        if encoder.fingerprint != self.fingerprint:
            raise EncoderMismatchError(
                f"The words of the knowledge base were weighed by the sparse encoder {self.name} (fingerprint "
                f"{self.fingerprint[:12]}), but this is another ({encoder.fingerprint[:12]}). Restore the first, or "
                "build the knowledge base again with the second."
            )
        return encoder


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """How vectors are searched."""

    # as requested: ``"auto"``, ``"flat"``, ``"hnsw"``, ``"ivfpq"``, ``"sq8"`` or a FAISS factory string
    kind: str
    metric: str  # how vectors are compared
    parameters: dict[str, int]  # settings of the search, such as ``nprobe``


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file as it was written."""

    bytes: int
    sha256: str  # its hash

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Measure and hash a file."""
        with path.open("rb") as file:
            return cls(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One segment as a version sees it."""

    name: str
    rows: int  # how many passages were written into it
    passages: int  # how many of them are not deleted
    documents: int  # how many documents those belong to
    factory: str  # the FAISS factory string of its index; ``"Flat"`` if all vectors are compared
    recall: dict[str, float]  # share of the K nearest passages that the index finds, by K; empty if unknown
    files: dict[str, FileRecord]  # its files by their names
    breadth: int = 1  # how much more broadly than by default the index searches
    measured: int = 0  # how many passages there were when the recall was measured

    @property
    def is_stale(self) -> bool:
        """Whether at least one in a hundred passages has changed since the recall was measured."""
        return 100 * abs(self.passages - self.measured) >= self.measured


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """The change that made a version."""

    kind: str  # ``"build"``, ``"add"``, ``"sync"``, ``"delete"``, ``"compact"`` or ``"reembed"``
    added: int = 0  # passages that were added
    deleted: int = 0  # passages that were deleted, with those of replaced sources
    duplicates: int = 0  # Passages whose title and text existed. They are not stored again, but remembered
    unchanged: int = 0  # sources that were not read because their content was known
    skipped: tuple[str, ...] = ()  # A sentence for each source that could not be read
    read: int = 0  # files that were read
    without_text: int = 0  # of these, files that gave no passage
    # files in the folders that were not read, with the reason: their ending, or ``"hidden"``
    ignored: dict[str, str] = field(default_factory=dict)
    removed: int = 0  # sources that were removed because they no longer exist
    kept: int = 0  # passages that lost their source, and stay because another source holds them


@dataclass(frozen=True)
class Manifest:
    """Everything that a reader needs to know about a version."""

    ragweave_version: str  # the version of ragweave that wrote it
    created: str  # when, in UTC, as ISO 8601
    change: ChangeRecord  # the change that made it
    encoder: EncoderRecord  # the encoder that embedded the passages
    dimension: int  # D, the size of a vector
    index: IndexRecord  # how vectors are searched
    chunking: Chunking  # how documents were split into passages
    segments: tuple[SegmentRecord, ...]  # its segments, in the order of the rows
    files: dict[str, FileRecord]  # the version's own files by their names
    language: str | None = None  # the language of BM25; ``None`` without words
    analyzer: int = ANALYZER_VERSION  # the version of the rules that split text into words
    sparse: SparseRecord | None = None  # the encoder of words; ``None`` for BM25
    format_version: int = FORMAT_VERSION  # the format of all this

    @property
    def passages(self) -> int:
        """The number of passages, N."""
        return sum(segment.passages for segment in self.segments)

    @property
    def documents(self) -> int:
        """The number of documents with at least one passage."""
        return sum(segment.documents for segment in self.segments)

    @property
    def rows(self) -> int:
        """The number of rows, with those of deleted passages."""
        return sum(segment.rows for segment in self.segments)

    @property
    def recall(self) -> dict[str, float]:
        """The lowest recall of a segment by K; empty if one was not measured."""
        recalls = [EXACT, *(segment.recall for segment in self.segments if segment.factory != "Flat")]
        return {
            k: min(recall[k] for recall in recalls) for k in EXACT if all(k in recall for recall in recalls)
        }

    @property
    def deleted_share(self) -> float:
        """The share of rows whose passages are deleted."""
        return 1 - self.passages / max(self.rows, 1)

    @property
    def needs_compaction(self) -> bool:
        """Whether enough rows are deleted for compaction to pay off."""
        return self.deleted_share > COMPACT_SHARE and self.rows - self.passages >= COMPACT_ROWS

    def summary(self) -> dict[str, Any]:
        """The main facts, in values that JSON can hold."""
        return {
            "created": self.created,
            "documents": self.documents,
            "passages": self.passages,
            "chunking": self.chunking.kind,
            **{name: getattr(self.chunking, name) for name in ("words", "tokens", "overlap")},
            "encoder": self.encoder.name,
            **{name: value for name, value in asdict(self.encoder).items() if name != "name"},
            "dimension": self.dimension,
            "index": self.index.kind,
            "factory": ", ".join(dict.fromkeys(segment.factory for segment in self.segments)),
            "parameters": self.index.parameters,
            "index_bytes": sum(
                file.bytes
                for one in self.segments
                for name, file in one.files.items()
                if name == "index.faiss"
            ),
            "language": self.language,
            "sparse": None if self.sparse is None else self.sparse.name,
            "segments": len(self.segments),
            "deleted": round(self.deleted_share, 4),
            "recall": self.recall,
            "metric": self.index.metric,
        }

    @cached_property
    def checksum(self) -> str:
        """Hash of everything; of a manifest that was read, the hash in its file."""
        return _checksum(self._content())

    def to_json(self) -> str:
        """Write the manifest as JSON."""
        content = {**self._content(), "checksum": self.checksum}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def _content(self) -> dict[str, Any]:
        content = {
            "format_version": self.format_version,
            **asdict(self),
            "chunking": self.chunking.to_record(),
        }
        if content["sparse"] is None:
            del content["sparse"]
        language = content.pop("language")
        return content if language is None else {**content, "lexical": {"language": language}}

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read and check a manifest; raises `KnowledgeBaseError` if it is missing, damaged or of another format."""
        try:
            return cls.parse(path.read_bytes(), path)
        except OSError as error:
            raise too_many_files(error) or KnowledgeBaseError(
                f"The manifest {path} cannot be read ({error.strerror}): {_REBUILD}"
            ) from error

    @classmethod
    def parse(cls, text: str | bytes, path: Path | str) -> Manifest:
        """Read and check what `to_json` wrote; see `read`. Messages name the path."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise KnowledgeBaseError(f"The manifest {path} is damaged ({error}): {_REBUILD}") from error
        format_version = content.get("format_version") if isinstance(content, dict) else None
        if isinstance(format_version, int) and format_version != FORMAT_VERSION:
            raise KnowledgeBaseError(
                f"The knowledge base of the manifest {path} has format {format_version}, this ragweave reads format "
                f"{FORMAT_VERSION}: install the version of ragweave that wrote it, or {_REBUILD}"
            )
        try:
            language = content["lexical"]["language"] if "lexical" in content else None
            manifest: Manifest = decoded(cls, {**content, "language": language})
            for segment in manifest.segments:
                _check_names(segment.name, *segment.files)
            _check_names(*manifest.files)
            if manifest.analyzer != ANALYZER_VERSION:
                raise ValueError("its words were split by other rules")
            stored = content.pop("checksum")
            # Over the file, not the parsed manifest: an older or newer ragweave may have written other fields.
            if stored != _checksum(content):
                raise ValueError("its checksum does not match")
            manifest.__dict__["checksum"] = stored
            return manifest
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KnowledgeBaseError(f"The manifest {path} is damaged ({error!r}): {_REBUILD}") from error


def _checksum(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


_type_hints = cache(get_type_hints)


def decoded(kind: Any, value: Any) -> Any:
    """Convert a value of JSON to exactly the type that a record declares."""
    origin, args = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _type_hints(kind)
        present = [
            field
            for field in fields(kind)
            if field.name in value or (field.default is MISSING and field.default_factory is MISSING)
        ]
        return kind(**{field.name: decoded(hints[field.name], value[field.name]) for field in present})
    if origin is UnionType:
        return None if value is None else decoded(args[0], value)
    if origin is tuple:
        return tuple(decoded(args[0], item) for item in value)
    if origin in (dict, Mapping):
        return {decoded(args[0], key): decoded(args[1], item) for key, item in value.items()}
    kind = str if origin is Literal else kind
    if type(value) is not kind:  # no subclass: True is an int
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    if kind is int and value < 0:
        raise ValueError(f"{value!r} is below zero")
    return value


def _check_names(*names: str) -> None:
    """Check that names are plain, so that no path leads out of its folder."""
    for name in names:
        if name in {"", ".", ".."} or any(character in name for character in "/\\:\0"):
            raise ValueError(f"{name!r} is not a plain file name")
