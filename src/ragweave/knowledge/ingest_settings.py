"""How documents become passages and an index: settings that a knowledge base keeps in its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from ragweave.errors import ConfigurationError

if TYPE_CHECKING:  # the write side, which readers do not load
    from ragweave.knowledge.ingest.builder import Engine

ChunkingKind = Literal["sentences", "words", "tokens", "markdown"]


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents are cut into passages.

    Attributes:
        kind: ``"sentences"``: about ``words`` words, at sentence ends. ``"words"``: exactly ``words`` words, and a
            shorter rest, as Lewis et al. 2020 and DPR cut Wikipedia. ``"tokens"``: at most ``tokens`` tokens of the
            encoder, title included, at sentence ends where possible. ``"markdown"``: as ``"sentences"``, but never
            across a heading; the headings above a passage become its title.
        words: Words of a passage.
        tokens: The most tokens of a passage; ``None`` for as many as the encoder reads.
        overlap: Words (with ``"tokens"``, tokens) that each passage repeats from the one before it.

    Raises:
        ConfigurationError: A value is out of range.
    """

    kind: ChunkingKind = "sentences"
    words: int = 100
    tokens: int | None = None
    overlap: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
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
        """The settings as a manifest holds them; the default kind is written as in the first format."""
        if self.kind == "sentences" and not self.overlap:
            return {"words": self.words}
        return {"kind": self.kind, "words": self.words, "tokens": self.tokens, "overlap": self.overlap}


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """How documents become a segment of a knowledge base.

    Attributes:
        chunking: How documents are cut into passages.
        index_kind: How vectors are searched; see `IndexRecord`.
        index_parameters: Settings of that search.
        language: Language of the search by words; ``None`` for vectors alone.
        strict: Whether a source that cannot be read is an error.
        engine: Embeds the passages; ``None`` for this process.
        flat_up_to: Up to how many passages all vectors are compared, whatever ``index_kind`` is.
    """

    chunking: Chunking
    index_kind: str
    index_parameters: dict[str, int]
    language: str | None
    strict: bool = True
    engine: Engine | None = None
    flat_up_to: int = 0
