"""Settings of a service: limits, batching, API keys, hosts and origins."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Literal
from unicodedata import normalize

from ragweave.errors import ConfigurationError

MIN_KEY_LENGTH = 16
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class KeyRing:
    """A set of API keys, stored as hashes and compared in constant time.

    Args:
        keys: The keys.

    Raises:
        ConfigurationError: There are no keys, or one has fewer than 16 characters.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        if not keys:
            raise ConfigurationError("There is no key. Write one key per line.")
        if any(len(key) < MIN_KEY_LENGTH for key in keys):
            raise ConfigurationError(f"A key has fewer than {MIN_KEY_LENGTH} characters. Use longer keys.")
        self._digests = [_digest(key) for key in keys]

    @classmethod
    def from_file(cls, path: str | Path) -> KeyRing:
        """Read one key per line of UTF-8. Empty lines and lines that start with # are ignored.

        Raises:
            ConfigurationError: The file cannot be read, or its keys cannot be used.
        """
        try:
            lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ConfigurationError(
                f"The key file {path} cannot be read ({reason}). Check its path and encoding."
            ) from error
        try:
            return cls(line for line in lines if line and not line.startswith("#"))
        except ConfigurationError as error:
            raise ConfigurationError(f"The key file {path} cannot be used. {error}") from error

    def accepts(self, key: str) -> bool:
        """Whether a key is in the set."""
        digest, accepted = _digest(key), False
        for known in self._digests:  # no early exit, so that timing reveals nothing about the keys
            accepted |= hmac.compare_digest(known, digest)
        return accepted


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum values of one request. Larger requests are rejected with the name of the limit.

    Attributes:
        questions: Questions per request.
        question_characters: Characters per question.
        n_docs: K, passages per question.
        num_beams: R, beams per question.
        max_new_tokens: Tokens per answer.
        messages: Messages per chat.
        message_characters: Characters per message of a chat.
        embeddings: Texts to embed per request.
        documents: Documents per request.
        document_characters: Characters per document.
        body_bytes: Bytes per request.
        upload_bytes: Bytes per uploaded file.
    """

    questions: int = 16
    question_characters: int = 2_000
    n_docs: int = 20
    num_beams: int = 8
    max_new_tokens: int = 256
    messages: int = 64
    message_characters: int = 32_768
    embeddings: int = 2_048
    documents: int = 64
    document_characters: int = 200_000
    body_bytes: int = 4 * 2**20
    upload_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        for limit in fields(self):
            _check_positive(limit.name, getattr(self, limit.name))

    @classmethod
    def with_defaults(cls, max_queue: int = 64, **defaults: int | None) -> Limits:
        """Limits for a queue; each limit below the default of the same name is raised to it."""
        limits = cls()
        raised = {name: max(getattr(limits, name), value or 1) for name, value in defaults.items()}
        return cls(questions=min(limits.questions, max_queue), **raised)


@dataclass(frozen=True, slots=True)
class Batching:
    """How questions of concurrent requests are batched.

    Attributes:
        max_batch: Questions per batch.
        max_wait: Seconds that the first question of a batch waits for others, at most half of the deadline.
        max_queue: Questions that may wait. Further questions are rejected.
        deadline: Seconds after which a request fails.
    """

    max_batch: int = 8
    max_wait: float = 0.01
    max_queue: int = 64
    deadline: float = 60.0

    def __post_init__(self) -> None:
        _check_positive("max_batch", self.max_batch)
        _check_positive("max_queue", self.max_queue)
        if self.max_wait < 0:
            raise ConfigurationError(f"max_wait is {self.max_wait}. Use 0 or more seconds.")
        if self.deadline <= 0:
            raise ConfigurationError(f"deadline is {self.deadline}. Use more than 0 seconds.")


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """Settings of a service.

    Attributes:
        n_docs: Default K; ``None`` for the model's.
        num_beams: Default R.
        max_new_tokens: Default maximum length of an answer, in tokens.
        limits: Maximum values of one request.
        batching: How questions are batched.
        keys: Who may send requests; ``None`` for everybody.
        admin_keys: Who may change documents; ``None`` for nobody.
        open_changes: Let everybody change documents if there are no keys at all.
        allowed_hosts: Host names that requests may address, which protects against DNS rebinding; all if empty.
        cors_origins: Other origins whose pages may call the service; none if empty.
        refresh_seconds: Seconds between checks for a new version of the knowledge base.
        keep_versions: How many older versions to keep after a change of documents; the newest are kept.
        max_connections: Open connections, at most half of the descriptors that the process may open.
        request_seconds: Seconds that a client has to send the headers of a request, to send its body, and to read.

    Raises:
        ConfigurationError: A value is invalid.
    """

    n_docs: int | None = None
    num_beams: int = 1
    max_new_tokens: int = 32
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)
    keys: KeyRing | None = None
    admin_keys: KeyRing | None = None
    open_changes: bool = False
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    refresh_seconds: float = 1.0
    keep_versions: int = 10
    max_connections: int = 512
    request_seconds: float = 20.0

    @property
    def changes(self) -> Literal["nobody", "admin key", "everybody"]:
        """Who may change documents."""
        if self.admin_keys is not None:
            return "admin key"
        return "everybody" if self.open_changes and self.keys is None else "nobody"

    def __post_init__(self) -> None:
        _check_positive("max_connections", self.max_connections)
        if self.keep_versions < 0:
            raise ConfigurationError(f"keep_versions is {self.keep_versions}. Use 0 or more.")
        if self.request_seconds <= 0:
            raise ConfigurationError(f"request_seconds is {self.request_seconds}. Use more than 0 seconds.")
        for name in ("n_docs", "num_beams", "max_new_tokens"):
            value, limit = getattr(self, name), getattr(self.limits, name)
            if value is None:
                continue
            _check_positive(name, value)
            if value > limit:
                raise ConfigurationError(
                    f"{name} is {value}, but the limit for requests is {limit}. Raise the limit."
                )
        if self.limits.questions > self.batching.max_queue:
            raise ConfigurationError(
                f"A request may have {self.limits.questions} questions, but the queue holds "
                f"{self.batching.max_queue}. Raise max_queue."
            )


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigurationError(f"{name} is {value}. Use 1 or more.")


def _digest(key: str) -> bytes:
    # Some editors and systems encode an accented letter as two characters.
    return sha256(normalize("NFC", key).encode("utf-8", "surrogateescape")).digest()
