"""A RAG model's special tokens, from its configuration. No framework here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ragweave.configuration import RagConfig


@dataclass(frozen=True)
class SpecialTokens:
    """The generator's special tokens: RagConfig's own where it names them, its generator's elsewhere.

    Attributes:
        config: The configuration.
    """

    config: RagConfig

    @property
    def pad(self) -> int | None:
        """The generator's padding token."""
        return _first_id(self.config.pad_token_id, getattr(self.config.generator, "pad_token_id", None))

    @property
    def eos(self) -> int | None:
        """The generator's end-of-sequence token (the first, where there are several)."""
        return _first_id(*self._eos_candidates)

    @property
    def ends(self) -> list[int]:
        """All tokens that end an answer."""
        for candidate in self._eos_candidates:
            if isinstance(candidate, (list, tuple)) and candidate:
                return [int(token) for token in candidate]
            if isinstance(candidate, int):
                return [candidate]
        return []

    @property
    def bos(self) -> int | None:
        """The generator's beginning-of-sequence token."""
        return _first_id(self.config.bos_token_id, getattr(self.config.generator, "bos_token_id", None))

    @property
    def filler(self) -> int:
        """A token to fill positions with that nothing looks at."""
        return _first_id(self.pad, self.eos, 0) or 0

    @property
    def decoder_start(self) -> int:
        """The token that a decoder begins with; for causal generators, a placeholder."""
        own = getattr(self.config.generator, "decoder_start_token_id", None)
        start = _first_id(self.config.decoder_start_token_id, own, self.bos, self.pad)
        return self.filler if start is None else start

    @property
    def _eos_candidates(self) -> tuple[int | list[int] | None, ...]:
        return self.config.eos_token_id, getattr(self.config.generator, "eos_token_id", None)


def _first_id(*candidates: int | list[int] | None) -> int | None:
    """The first id that is there; of a list, its first."""
    for candidate in candidates:
        if isinstance(candidate, (list, tuple)) and candidate:
            return int(candidate[0])
        if isinstance(candidate, int):
            return candidate
    return None
