"""Where a knowledge base is: the URI of a database, or the files of a folder and whether they are intact."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ragweave.errors import ConfigurationError, KnowledgeBaseError, OpenFilesError, require_extra
from ragweave.knowledge import store
from ragweave.knowledge.manifest import FileRecord, Manifest
from ragweave.types import SourceRecord, Sources

CHECKED_BYTES = 1 << 24
"""Files up to this size are compared with their hashes when they are opened, which takes about 10 ms for 16 MiB."""

DEFAULT_TABLE = "ragweave"

_URI = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_URI_AS_PATH = re.compile(r"(postgres(ql)?|milvus(\+https?)?):/(?!/)", re.IGNORECASE)
# Names get suffixes, and PostgreSQL cuts names off at 63 bytes.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,49}")

_VERSION = re.compile(r"\d{6,}")
_POINTER = re.compile(r"(?P<version>\d{6,}) (?P<checksum>[0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class PostgresUri:
    """The location of a knowledge base in PostgreSQL. Passwords are never shown."""

    conninfo: str = field(repr=False)  # the connection string for libpq; may contain a password
    table: tuple[str, ...]  # the table, after its schema if one was named
    shown: str  # the URI without the password
    host: str  # the server in messages
    secrets: tuple[str, ...] = field(default=(), repr=False)  # texts that messages must not contain

    def __str__(self) -> str:
        return self.shown

    def without_secrets(self, text: str) -> str:
        """Hide passwords in a message of libpq, which quotes a URI that it cannot read."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


@dataclass(frozen=True, slots=True)
class MilvusUri:
    """The location of a published knowledge base in Milvus."""

    address: str  # the address of the server, or the file of Milvus Lite
    collection: str  # the alias of the current collection
    shown: str  # the URI without the password
    token: str = field(default="", repr=False)
    database: str = ""  # the database on the server

    def __str__(self) -> str:
        return self.shown


Location = Path | PostgresUri | MilvusUri  # where a knowledge base is


def is_uri(path: Path | str) -> bool:
    """Whether a path is the URI of a database, and not a folder. In a `Path`, a URI has lost a slash: an error."""
    if isinstance(path, Path) and _URI_AS_PATH.match(str(path)):
        raise ConfigurationError(f"'{path}' was a URI, and Path dropped a slash. Pass the URI as a string.")
    return isinstance(path, str) and _URI.match(path) is not None


def location_of(path: Path | str) -> Location:
    """The folder or database that a path names."""
    return parse_uri(str(path)) if is_uri(path) else Path(path)


def parse_uri(uri: str) -> PostgresUri | MilvusUri:
    """Parse the URI of a knowledge base, before anything imports the client of a database."""
    parts = urlsplit(uri)
    if parts.scheme in {"milvus", "milvus+http", "milvus+https"}:
        return _milvus_uri(parts)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise ConfigurationError(
            f"There is no database for {parts.scheme}://. Give postgresql://user@host/db?table=NAME, "
            "milvus+http://host:19530?collection=NAME, or the path of a folder."
        )
    require_extra("psycopg", "pgvector")
    require_extra("pgvector", "pgvector")
    parameters = _parameters(parts.query)
    table = parameters.pop("table", DEFAULT_TABLE).split(".")
    if len(table) > 2 or not all(map(_NAME.fullmatch, table)):
        raise ConfigurationError(
            f"The table {'.'.join(table)!r} is not a plain name. Give letters, digits and underscores, at most 50, "
            "optionally after a schema and a dot."
        )
    login, at, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    hidden = [value for name, value in parameters.items() if "password" in name]
    shown = {name: value for name, value in parameters.items() if "password" not in name}
    return PostgresUri(
        conninfo=_joined(parts.netloc, parts.path, parameters),
        table=tuple(table),
        shown=_joined(user + at + hosts, parts.path, {**shown, "table": ".".join(table)}),
        host=hosts or parameters.get("host") or "the local socket",
        secrets=tuple(filter(None, (password, unquote(password), *hidden, *map(quote, hidden)))),
    )


def _milvus_uri(parts: SplitResult) -> MilvusUri:
    require_extra("pymilvus", "milvus")
    parameters = _parameters(parts.query)
    collection = parameters.pop("collection", DEFAULT_TABLE)
    if parameters or not _NAME.fullmatch(collection):
        raise ConfigurationError(
            f"A URI of Milvus ends in ?collection=NAME, with a name of letters, digits and underscores, at most 50. "
            f"This one ends in {parts.query!r}."
        )
    login, _, host = parts.netloc.rpartition("@")
    is_file = parts.scheme == "milvus"
    if is_file == bool(host) or (is_file and not parts.path.endswith(".db")):
        raise ConfigurationError(
            "Give milvus+http://host:19530?collection=NAME for a server of Milvus (milvus+https:// for TLS), or "
            "milvus:///folder/file.db?collection=NAME for a file of Milvus Lite."
        )
    path = unquote(parts.path)
    return MilvusUri(
        address=path if is_file else f"{parts.scheme.removeprefix('milvus+')}://{host}",
        collection=collection,
        shown=f"{parts.scheme}://{host}{parts.path}?collection={collection}",
        token=unquote(login) or os.environ.get("MILVUS_TOKEN", ""),
        database="" if is_file else path.strip("/"),
    )


def _parameters(query: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in query.split("&") if part)
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _joined(netloc: str, path: str, parameters: dict[str, str]) -> str:
    query = "&".join(f"{quote(name)}={quote(value, safe='/')}" for name, value in parameters.items())
    return f"postgresql://{netloc}{path}{'?' if query else ''}{query}"


class PostingFiles(NamedTuple):
    """The files of a segment's postings."""

    words: Path  # the hashes of the words, ascending: (W,)
    starts: Path  # where the postings of each word start, and where the last ones end: (W+1,)
    rows: Path  # the rows in which words occur, ascending for each word: (P,)
    counts: Path  # how often they occur there: (P,)
    lengths: Path  # how many words each row has: (N,)

    @classmethod
    def in_folder(cls, folder: Path) -> PostingFiles:
        """The files in a segment's folder."""
        names = ("words", "word_starts", "word_rows", "word_counts", "lengths")
        return cls(*(folder / f"{name}.npy" for name in names))


class SegmentLayout:
    """The files of one segment: passages that were written together and never change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passages = folder / "passages.arrow"  # the passages, an Arrow IPC file
        self.vectors = folder / "vectors.npy"  # their vectors, a numpy array, (N, D)
        self.hashes = folder / "hashes.npy"  # their hashes, which find duplicates: a numpy array, (N,)
        # the FAISS index of the vectors; missing if all vectors are compared
        self.index = folder / "index.faiss"
        # the postings of the words; missing if passages are searched by vectors alone
        self.postings = PostingFiles.in_folder(folder)

    @property
    def data(self) -> tuple[Path, ...]:
        """All files that exist."""
        optional = (path for path in (self.index, *self.postings) if path.exists())
        return (self.passages, self.vectors, self.hashes, *optional)


class VersionLayout:
    """The files of one version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "manifest.json"  # what the version holds, and how it was made
        # rows of its segments that it has deleted, ascending: a numpy array
        self.deleted = folder / "deleted.npy"
        self.sources = folder / "sources.json"  # the files that were read, with the hashes of their content
        # copies of passages in other rows, without title and text: an Arrow IPC file
        self.copies = folder / "copies.arrow"
        # the row that each copy belongs to, and whether the row now has its ids and source because it lost its own:
        # (M, 2)
        self.copy_rows = folder / "copies.npy"
        # all files except the manifest, which lists them
        self.data = (self.deleted, self.sources, self.copies, self.copy_rows)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which version is current."""

    version: str
    # the start of its manifest's checksum, so that a damaged pointer cannot name another version
    checksum: str


class Layout:
    """The paths of a saved knowledge base."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.current = root / "CURRENT"  # the pointer: a file with the name of the current version
        self.versions = root / "versions"  # the folder of all versions
        self.segments = root / "segments"  # the folder of all segments, which versions share
        # the folder of the passages' keys and values in generators; see `ragweave.knowledge.stored_states`
        self.states = root / "states"
        self.lock = root / ".writer.lock"  # the file that a writer locks
        self.writer = root / ".writer"  # the file that names the writer
        self.work = root / ".work"  # the folder in which a change is staged

    def version(self, name: str) -> VersionLayout:
        """The paths of one version."""
        return VersionLayout(self.versions / name)

    def segment(self, name: str) -> SegmentLayout:
        """The paths of one segment."""
        return SegmentLayout(self.segments / name)

    def version_names(self) -> list[str]:
        """The names of all versions, oldest first."""
        names = filter(_VERSION.fullmatch, store.names_in(self.versions))
        return sorted((name for name in names if self.version(name).manifest.is_file()), key=int)

    def is_knowledge_base(self) -> bool:
        """Whether the folder holds a knowledge base, intact or not."""
        return self.current.is_file() and self.versions.is_dir()

    def read_current(self) -> Pointer:
        """Read which version is current; raises `KnowledgeBaseError` if there is none, or the pointer is damaged."""
        if not self.root.exists():
            raise KnowledgeBaseError(
                f"There is no knowledge base at {self.root}. Check the path, or build one with "
                f"'ragweave index SOURCE --output {self.root}'."
            )
        if not self.is_knowledge_base():
            raise KnowledgeBaseError(
                f"{self.root} is not a knowledge base. Give a folder that 'ragweave index' created."
            )
        try:
            content = self.current.read_bytes()
        except OSError as error:
            raise store.damaged(self.current, error) from error
        match = _POINTER.fullmatch(content.decode("ascii", errors="replace").strip())
        # The name becomes part of a path: anything but digits could lead out of the folder.
        if match is None:
            raise KnowledgeBaseError(
                f"The pointer {self.current} is damaged. Make a version current with 'ragweave rollback {self.root} "
                "VERSION', or build the knowledge base again with --overwrite."
            )
        return Pointer(**match.groupdict())

    def write_current(self, pointer: Pointer) -> None:
        """Make a version current, atomically: a reader sees the old pointer or the new one."""
        store.replace_text(self.current, f"{pointer.version} {pointer.checksum}\n")

    def next_version(self) -> str:
        """The name of a new version: a higher number than any existing version, current or not."""
        names = store.names_in(self.versions) + store.names_in(self.segments)
        numbers = [int(name) for name in names if _VERSION.fullmatch(name)]
        return f"{max(numbers, default=0) + 1:06d}"


def sources_json(sources: Sources) -> str:
    """Write sources as JSON."""
    return json.dumps({key: asdict(record) for key, record in sources.items()}, indent=1, ensure_ascii=False)


def read_sources(path: Path) -> Sources:
    """Read what `sources_json` wrote."""
    try:
        content = json.loads(path.read_bytes())
        return {str(key): SourceRecord(**record) for key, record in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise store.damaged(path, error) from error


def files_of(layout: Layout, version: str, manifest: Manifest) -> Iterator[tuple[Path, FileRecord]]:
    """The files of a version and its segments, and how they were written."""
    for path in layout.version(version).data:
        yield path, manifest.files.get(path.name, FileRecord(-1, ""))
    for segment in manifest.segments:
        for name, record in segment.files.items():
            yield layout.segment(segment.name).folder / name, record


def verify_folder(path: Path, version: str | None = None) -> tuple[int, int]:
    """Read every byte of a version, by default the current one, even if it is too damaged to be opened.

    Returns how many files are intact, and how many bytes they have. A `KnowledgeBaseError` names all files that have
    changed or are missing, and the newest other version that is intact.
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
    try:
        manifest = Manifest.read(layout.version(version).manifest)
    except OpenFilesError:
        raise
    except KnowledgeBaseError as error:
        return [str(error).partition(":")[0]]
    problems = (problem_of(path, record, None) for path, record in files_of(layout, version, manifest))
    return [problem for problem in problems if problem]


def problem_of(path: Path, record: FileRecord, checked_bytes: int | None) -> str | None:
    """What is wrong with a file; its hash is compared up to ``checked_bytes``, ``None`` for any size."""
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
