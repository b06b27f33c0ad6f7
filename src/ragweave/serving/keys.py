"""Keys: read from a file, kept as hashes, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from ragweave.errors import ConfigurationError

SHORTEST = 16
"""Characters that a key has at least."""


class KeyRing:
    """Some keys, of which any opens.

    Args:
        keys: The keys.

    Raises:
        ConfigurationError: There is none, or one is so short that it could be guessed.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        own = list(keys)
        if not own:
            raise ConfigurationError("There is no key: write one a line.")
        if any(len(key) < SHORTEST for key in own):
            raise ConfigurationError(f"A key has fewer than {SHORTEST} characters: make longer ones.")
        self._digests = [_digest(key) for key in own]

    @classmethod
    def from_file(cls, path: str | Path) -> KeyRing:
        """Read keys, one a line; empty lines and those that begin with # are passed over.

        Raises:
            ConfigurationError: The file cannot be read, or has no key, or one that is too short.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ConfigurationError(f"The key file {path} cannot be read ({reason}).") from error
        keys = [line.strip() for line in lines]
        try:
            return cls(key for key in keys if key and not key.startswith("#"))
        except ConfigurationError as error:
            raise ConfigurationError(f"The key file {path} cannot be used. {error}") from error

    def opens(self, key: str) -> bool:
        """Whether this is one of the keys; it takes as long whichever it is, and if it is none."""
        given, found = _digest(key), False
        for own in self._digests:
            found |= hmac.compare_digest(own, given)
        return found


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()
