"""How documents are cut into passages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from ragweave.errors import ConfigurationError

ChunkingKind = Literal["sentences", "words", "tokens", "markdown"]


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents are cut into passages.

    Attributes:
        kind: ``"sentences"``: about so many words, at the ends of sentences. ``"words"``: exactly so many words, and
            the rest, as Lewis et al. 2020 and DPR cut Wikipedia. ``"tokens"``: at most so many tokens of the encoder,
            title included, at the ends of sentences where possible. ``"markdown"``: as ``"sentences"``, but never
            across a heading; the headings above a passage become its title.
        words: How many words a passage has.
        tokens: How many tokens a passage has at most; ``None`` for as many as the encoder reads.
        overlap: How many words (of ``"tokens"``, tokens) of the passage before each repeats.

    Raises:
        ConfigurationError: A value cannot work.
    """

    kind: ChunkingKind = "sentences"
    words: int = 100
    tokens: int | None = None
    overlap: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.kind not in get_args(ChunkingKind):
            raise ConfigurationError(
                f"There is no way of chunking {self.kind!r}; choose one of {', '.join(get_args(ChunkingKind))}."
            )
        if self.words < 1:
            raise ConfigurationError(f"A passage of {self.words} words is not possible: give at least 1.")
        if self.tokens is not None and self.tokens < 1:
            raise ConfigurationError(f"A passage of {self.tokens} tokens is not possible: give at least 1.")
        size = self.tokens if self.kind == "tokens" else self.words
        if self.overlap < 0 or (self.overlap and size is not None and 2 * self.overlap > size):
            raise ConfigurationError(
                f"An overlap of {self.overlap} is not possible: give at most half of the {size} of a passage."
            )

    def to_record(self) -> dict[str, Any]:
        """The settings as a manifest holds them; the usual ones are as they were when there were no others."""
        if self.kind == "sentences" and not self.overlap:
            return {"words": self.words}
        return {"kind": self.kind, "words": self.words, "tokens": self.tokens, "overlap": self.overlap}


class Tokenizes(Protocol):
    """What knows the tokens of an encoder; `TextEncoder` is one."""

    @property
    def max_length(self) -> int | None:
        """The most tokens that are read, special ones included."""
        ...

    def passage_token_count(self, title: str, text: str) -> int:
        """How many tokens a passage has, special ones included."""
        ...

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Where the tokens of a text begin and end."""
        ...
