"""What a service allows, how it batches, and who may use it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ragweave.errors import ConfigurationError
from ragweave.serving.keys import KeyRing


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request may ask for; what asks for more is refused, and told which limit it is.

    Attributes:
        questions: Questions of one request.
        question_characters: Characters of one question.
        n_docs: K, passages per question.
        num_beams: R, beams per question.
        max_new_tokens: Tokens of one answer.
        messages: Messages of one chat.
        documents: Documents of one addition.
        document_characters: Characters of one document.
        body_bytes: Bytes of one request.
    """

    questions: int = 16
    question_characters: int = 2_000
    n_docs: int = 20
    num_beams: int = 8
    max_new_tokens: int = 256
    messages: int = 64
    documents: int = 64
    document_characters: int = 200_000
    body_bytes: int = 4 * 2**20

    def __post_init__(self) -> None:
        for own in fields(self):
            _at_least_one(own.name, getattr(self, own.name))


@dataclass(frozen=True, slots=True)
class Batching:
    """How questions of several requests are answered together.

    Attributes:
        max_batch: Questions answered together.
        max_wait: How long the first of them waits for others, in seconds.
        max_queue: Questions that wait; what comes when there are so many is refused.
        deadline: Within how many seconds a request is answered, or given up.
    """

    max_batch: int = 8
    max_wait: float = 0.01
    max_queue: int = 64
    deadline: float = 60.0

    def __post_init__(self) -> None:
        _at_least_one("max_batch", self.max_batch)
        _at_least_one("max_queue", self.max_queue)
        if self.max_wait < 0:
            raise ConfigurationError(f"max_wait is {self.max_wait}; give seconds, 0 or more.")
        if self.deadline <= 0:
            raise ConfigurationError(f"deadline is {self.deadline}; give seconds, more than 0.")


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """How a service answers.

    Attributes:
        n_docs: K where a request does not say; the model's where left out.
        num_beams: R where a request does not say.
        max_new_tokens: The longest answer where a request does not say, in tokens.
        limits: The most that a request may ask for.
        batching: How questions are answered together.
        keys: Who may ask; everyone where left out.
        admin_keys: Who may change documents; no one where left out.
        allowed_hosts: Names by which the service may be called, so that no page elsewhere reaches it by a name of
            its own; any where empty.
        cors_origins: Origins whose pages may call the service; none but its own where empty.
        refresh_seconds: How often a new version of the knowledge base is looked for.

    Raises:
        ConfigurationError: A value cannot work.
    """

    n_docs: int | None = None
    num_beams: int = 1
    max_new_tokens: int = 32
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)
    keys: KeyRing | None = None
    admin_keys: KeyRing | None = None
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    refresh_seconds: float = 1.0

    def __post_init__(self) -> None:
        for name in ("n_docs", "num_beams", "max_new_tokens"):
            value, most = getattr(self, name), getattr(self.limits, name)
            if value is not None:
                _at_least_one(name, value)
            if value is not None and value > most:
                raise ConfigurationError(
                    f"{name} is {value}, but the limit for requests is {most}: raise the limit."
                )
        if self.limits.questions > self.batching.max_queue:
            raise ConfigurationError(
                f"A request may have {self.limits.questions} questions, but the queue holds "
                f"{self.batching.max_queue}: raise max_queue."
            )


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigurationError(f"{name} is {value}; it must be 1 or more.")
