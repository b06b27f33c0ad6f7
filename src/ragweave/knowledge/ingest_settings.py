"""How documents become passages and an index: settings that a knowledge base keeps in its manifest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from ragweave.errors import ConfigurationError
from ragweave.types import NoProgress, Progress

if TYPE_CHECKING:  # the write side, which readers do not load
    from ragweave.encoders.sparse_encoder import SparseEncoder
    from ragweave.knowledge.ingest.builder import Engine
    from ragweave.knowledge.manifest import SparseRecord

ChunkingKind = Literal["sentences", "words", "tokens", "markdown"]


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents are cut into passages.

    Attributes:
        kind: ``"sentences"``: about ``words`` words, at sentence ends. ``"words"``: exactly ``words`` words, fewer
            in the last, as Lewis et al. 2020 and DPR cut Wikipedia. ``"tokens"``: at most ``tokens`` tokens of the
            encoder, title included, at sentence ends where possible. ``"markdown"``: as ``"sentences"``, but never
            across a heading; the headings above a passage become its title.
        words: Words of a passage.
        tokens: Maximum number of tokens of a passage; ``None`` for as many as the encoder reads.
        overlap: Words (with ``"tokens"``, tokens) that each passage repeats from the one before it.

    Raises:
        ConfigurationError: A value is out of range.
    """

    kind: ChunkingKind = "sentences"
    words: int = 100
    tokens: int | None = None
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(ChunkingKind):
            raise ConfigurationError(
                f"Unknown chunking {self.kind!r}. Choose one of: {', '.join(get_args(ChunkingKind))}."
            )
        for unit, size in (("words", self.words), ("tokens", self.tokens)):
            if size is not None and size < 1:
                raise ConfigurationError(f"{unit} is {size}: a passage needs at least 1.")
        size = self.tokens if self.kind == "tokens" else self.words
        if self.overlap < 0 or (self.overlap and size is not None and 2 * self.overlap > size):
            raise ConfigurationError(
                f"overlap is {self.overlap}: choose 0 or more, and at most half of the passage size {size}."
            )

    def to_record(self) -> dict[str, Any]:
        """The settings as a manifest stores them; the default kind is written as in the first format."""
        if self.kind == "sentences" and not self.overlap:
            return {"words": self.words}
        return {"kind": self.kind, "words": self.words, "tokens": self.tokens, "overlap": self.overlap}


@dataclass(frozen=True, slots=True)
class TableSettings:
    """How rows of tables and spreadsheets become documents. Names of columns are compared without regard to case.

    Attributes:
        id: The column that holds the documents' ids; empty for ``id`` or ``_id``.
        title: The column of their titles; empty for ``title``, or else the first column that holds text.
        text: The columns of their texts; empty for ``text``, or else all columns.
        hidden_sheets: Whether hidden sheets are read.
    """

    id: str = ""
    title: str = ""
    text: tuple[str, ...] = ()
    hidden_sheets: bool = False

    @classmethod
    def parse(cls, columns: Sequence[str], *, hidden_sheets: bool = False) -> TableSettings:
        """The settings of options such as ``title=Name,text=Abstract``; ``text`` may occur several times.

        Raises:
            ConfigurationError: An option has another form.
        """
        names: dict[str, list[str]] = {"id": [], "title": [], "text": []}
        for option in columns:
            # A column's name may have a comma, which does not separate it from another role.
            for part in re.split(r",\s*(?=(?:id|title|text)=)", option):
                role, _, name = part.partition("=")
                if role not in names or not name.strip() or (names[role] and role != "text"):
                    raise ConfigurationError(
                        f"--columns {option} is invalid. Write title=COLUMN, text=COLUMN or id=COLUMN, separated by "
                        "commas; only text may occur several times."
                    )
                names[role].append(name.strip())
        return cls("".join(names["id"]), "".join(names["title"]), tuple(names["text"]), hidden_sheets)


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """How files are read, and how much each may take. A file that takes more is skipped.

    Attributes:
        memory: MiB of memory for the process that reads files, which itself takes about 200 (on Linux).
        seconds: Seconds for a file, and again for every further 64 MiB of it.
        tables: How rows of tables become documents.
        follow_links: Whether links in a folder that lead out of it are followed.
        metadata: Metadata that every document gets, such as ``{"lang": "en"}``.

    Raises:
        ConfigurationError: A limit is too small.
    """

    memory: int = 2048
    seconds: float = 600
    tables: TableSettings = TableSettings()
    follow_links: bool = False
    metadata: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.memory < 256 or self.seconds <= 0:
            raise ConfigurationError(
                f"No file can be read within {self.memory} MiB of memory and {self.seconds} seconds: set at least "
                "256 MiB, and a positive time."
            )

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> ReadSettings:
        """The settings from a dictionary, in which JSON has turned tuples into lists."""
        tables = record["tables"]
        return cls(**{**record, "tables": TableSettings(**{**tables, "text": tuple(tables["text"])})})


DEFAULT_READING = ReadSettings()


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """How documents become a segment of a knowledge base."""

    chunking: Chunking  # how documents are cut into passages
    index_kind: str  # how vectors are searched; see `IndexRecord`
    index_parameters: dict[str, int]  # settings of that search
    language: str | None  # language of the search by words; ``None`` for vectors alone
    # the encoder that weighs words, or where to load it from; ``None`` for BM25
    sparse: SparseEncoder | SparseRecord | None = None
    flat_up_to: int = 0  # up to how many passages all vectors are compared, whatever ``index_kind`` is


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """How a change is carried out; none of this is stored in the knowledge base."""

    strict: bool = False  # whether a source that cannot be read is an error
    engine: Engine | None = None  # embeds the passages; ``None`` for this process
    reading: ReadSettings = DEFAULT_READING  # how files are read, within which limits
    resume: bool = False  # whether to continue where an interrupted run stopped
    progress: Progress = field(default_factory=NoProgress)  # receives the progress
