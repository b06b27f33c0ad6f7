"""A client of OpenAI-compatible servers: each answer with the log-probabilities of its tokens."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from ragweave.errors import ConfigurationError, GeneratorError
from ragweave.types import GeneratorApi

KEY_VARIABLE = "RAGWEAVE_GENERATOR_KEY"

_MOST_BYTES = 8 * 2**20
_LONGEST_WAIT = 30.0
_ROUNDING = 0.3  # of the log-probability of a token
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_NO_PROMPT = (
    "The generator's server does not return the probabilities of a prompt. Decode fast, or use one that does."
)


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer from the server.

    Attributes:
        text: The answer without surrounding white space.
        tokens: The T tokens, whose texts join to the answer; empty if the server's tokens do not.
        log_probs: Natural logarithms of the probabilities of all tokens that the server sent.
    """

    text: str
    tokens: tuple[str, ...]
    log_probs: tuple[float, ...]

    @property
    def log_prob(self) -> float:
        """Log p(y | x, z)."""
        return math.fsum(self.log_probs)

    def agrees(self, other: Completion) -> bool:
        """Whether both give their common first tokens the same probabilities, apart from a server's rounding."""
        pairs = [*zip(self.tokens, other.tokens, self.log_probs, other.log_probs, strict=False)]
        same = [*takewhile(lambda pair: pair[0] == pair[1], pairs)]
        return abs(math.fsum(one - two for _, _, one, two in same)) <= _ROUNDING * len(same)


class _TransientError(GeneratorError):
    """A request failed in a way that a retry may resolve."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class ChatClient:
    """Sends requests to an OpenAI-compatible server. Threads may share it.

    Args:
        url: The server's address, up to and including ``/v1``.
        model: The server's name of the model.
        api: "chat" sends chats, "completions" plain text, whose first line is the answer. "vllm" sends chats, and
            scores given answers with vLLM's ``prompt_logprobs``; "completions" scores them with ``echo``.
        key: The API key; by default the environment variable ``RAGWEAVE_GENERATOR_KEY``, if it is set.
        timeout: Seconds for each attempt.
        retries: Further attempts after a timeout, a lost connection, or the status 408, 429 or 5xx.
        backoff: Seconds before the first retry; each further wait is twice as long, or as long as the server asks.
        concurrency: Number of concurrent requests.
        max_requests: Maximum number of requests, including retries; ``None`` for no limit.

    Raises:
        ConfigurationError: An argument is invalid.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api: GeneratorApi = "chat",
        key: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        backoff: float = 0.5,
        concurrency: int = 8,
        max_requests: int | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigurationError(
                "The generator's address is invalid. Give http://HOST:PORT/v1, and the key in the environment "
                f"variable {KEY_VARIABLE} or a file."
            )
        if concurrency < 1 or retries < 0 or timeout <= 0 or (max_requests is not None and max_requests < 1):
            raise ConfigurationError(
                "concurrency and max_requests must be 1 or more, timeout above 0, and retries 0 or more."
            )
        key = os.environ.get(KEY_VARIABLE) if key is None else key
        if key and not (key.isascii() and key.isprintable()):
            raise ConfigurationError(
                "The generator's key contains control or non-ASCII characters. Check it."
            )
        self.url, self.model, self.api, self.concurrency = url, model, api, concurrency
        self._url = f"{url.rstrip('/')}/{'' if api == 'completions' else 'chat/'}completions"
        self._key, self._timeout, self._retries, self._backoff = key, timeout, retries, backoff
        self._left, self._lock = max_requests, threading.Lock()
        # Redirects are not followed: they could carry the key elsewhere.
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx2.Client(headers=headers, timeout=timeout, follow_redirects=False)

    @property
    def scores(self) -> bool:
        """Whether it can score given answers."""
        return self.api != "chat"

    def complete(self, system: str, user: str, max_tokens: int) -> Completion:
        """The most likely answer, decoded greedily.

        Args:
            system: The instruction.
            user: A passage and a question.
            max_tokens: The longest answer, in tokens.

        Raises:
            GeneratorError: The server fails or refuses, its response is not a completion, or the budget is spent.
        """
        if self.api == "completions":
            body = {"prompt": _plain(system, user), "max_tokens": max_tokens, "logprobs": 1, "stop": ["\n"]}
            return self._post(body, _read_completion)
        # llama-cpp-python returns no probabilities without top_logprobs.
        body = {"max_tokens": max_tokens, "logprobs": True, "top_logprobs": 1}
        return self._post({"messages": _chat(system, user), **body}, _read_chat)

    def score(self, system: str, user: str, answer: str) -> Completion:
        """Score a given answer; see `scores`.

        Raises:
            GeneratorError: As for `complete`, or the server does not return the probabilities of a prompt.
        """
        if self.api == "vllm":
            messages = [*_chat(system, user), {"role": "assistant", "content": answer}]
            # The answer is the open end of the prompt. 0 asks only for the probabilities of the prompt's tokens.
            ends = {"add_generation_prompt": False, "continue_final_message": True, "prompt_logprobs": 0}
            body = {"messages": messages, "max_tokens": 1, **ends}
            return self._post(body, partial(_read_prompt, answer=answer))
        prompt = _plain(system, user)
        body = {"prompt": f"{prompt} {answer}", "max_tokens": 1, "logprobs": 1, "echo": True}
        return self._post(body, partial(_read_echo, start=len(prompt), answer=answer))

    def _post(self, body: Mapping[str, Any], read: Callable[[Any], Completion]) -> Completion:
        body = {"model": self.model, "temperature": 0, **body}
        for attempt in range(self._retries + 1):
            self._spend()
            try:
                return self._request(body, read)
            except _TransientError as error:
                if attempt == self._retries:
                    raise GeneratorError(f"{error} It was tried {attempt + 1} times.") from error
                wait = self._backoff * 2**attempt if error.wait is None else error.wait
                time.sleep(min(wait, _LONGEST_WAIT))
        raise GeneratorError("No request was sent.")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _spend(self) -> None:
        with self._lock:
            if self._left == 0:
                raise GeneratorError("The limit of requests is reached. Raise it or ask fewer questions.")
            self._left = None if self._left is None else self._left - 1

    def _request(self, body: Mapping[str, Any], read: Callable[[Any], Completion]) -> Completion:
        try:
            with self._http.stream("POST", self._url, json=body) as response:
                content = b"".join(self._bounded(response.iter_bytes()))
                status, headers = response.status_code, response.headers
        except httpx2.TransportError as error:
            raise _TransientError(
                f"The generator's server cannot be reached ({type(error).__name__})."
            ) from error
        if status != 200:
            message = f"The generator's server returned status {status}{self._reason(content)}."
            if status in _TRANSIENT:
                asked = headers.get("retry-after", "")
                raise _TransientError(message, float(asked) if asked.isdecimal() else None)
            raise GeneratorError(message)
        try:
            completion = read(json.loads(content))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise GeneratorError("The response of the generator's server is not a completion.") from error
        if not completion.text or not completion.log_probs or not math.isfinite(completion.log_prob):
            raise GeneratorError("The generator's server returned an empty answer or no finite probability.")
        return completion

    def _bounded(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks of a response, which may be neither too long nor too slow."""
        size, until = 0, time.monotonic() + self._timeout
        for chunk in chunks:
            size += len(chunk)
            if size > _MOST_BYTES:
                raise GeneratorError(f"The response of the generator's server exceeds {_MOST_BYTES} bytes.")
            if time.monotonic() > until:
                raise _TransientError(
                    f"The response of the generator's server took longer than {self._timeout:g} s."
                )
            yield chunk

    def _reason(self, content: bytes) -> str:
        """The server's message about its error, without the key."""
        try:
            message = str(json.loads(content)["error"]["message"])[:200]
        except (ValueError, KeyError, TypeError):
            return ""
        return f" ({message.replace(self._key, '***') if self._key else message})"


def read_key(path: Path) -> str:
    """The API key in the first line of a file.

    Raises:
        ConfigurationError: The file cannot be read, or its first line is empty.
    """
    try:
        with path.open(encoding="utf-8") as file:
            key = file.readline(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The key file {path} cannot be read. Check its path and encoding."
        ) from error
    if not key:
        raise ConfigurationError(f"The key file {path} is empty. Write the key in its first line.")
    return key


def _plain(system: str, user: str) -> str:
    """The prompt of a model without a chat template."""
    return f"{system}\n\n{user}\nAnswer:"


def _chat(system: str, user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _read_chat(response: Any) -> Completion:
    """The answer of a chat completion."""
    choice = response["choices"][0]
    scored = (choice.get("logprobs") or {}).get("content")
    return _completion(choice["message"]["content"] or "", scored)


def _read_completion(response: Any) -> Completion:
    """The answer of a completion."""
    choice = response["choices"][0]
    return _completion(choice["text"], _columns(choice))


def _read_echo(response: Any, *, start: int, answer: str) -> Completion:
    """The end of an echoed prompt, from the character ``start`` on, as a completion."""
    choice = response["choices"][0]
    scored = _columns(choice)
    offsets = choice["logprobs"]["text_offset"] if scored else []
    end = start + len(answer) + 1
    part = [token for token, offset in zip(scored or (), offsets, strict=True) if start <= offset < end]
    completion = _completion(f" {answer}", part)
    if start not in offsets or not completion.tokens:
        raise GeneratorError(_NO_PROMPT)
    return completion


def _read_prompt(response: Any, *, answer: str) -> Completion:
    """The answer at the end of the prompt, from a response with vLLM's ``prompt_logprobs``."""
    part: list[dict[str, Any]] = []
    text, wanted = "", "".join(answer.split())  # some tokenizers decode single tokens without their spaces
    for scores in reversed(response.get("prompt_logprobs") or ()):
        if scores is None or len("".join(text.split())) >= len(wanted):
            break
        token = next(iter(scores.values()))  # the prompt's token comes first
        part.insert(0, {"token": token["decoded_token"], "logprob": token["logprob"]})
        text = token["decoded_token"] + text
    if "".join(text.split()) != wanted:
        raise GeneratorError(_NO_PROMPT)
    return _completion(text if text.strip() == answer else answer, part)


def _columns(choice: Any) -> list[dict[str, Any]] | None:
    """The tokens of a completion in the form of a chat completion."""
    logprobs = choice.get("logprobs")
    if logprobs is None:
        return None
    columns = zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True)
    return [{"token": token, "logprob": value} for token, value in columns]


def _completion(text: str, scored: Sequence[Mapping[str, Any]] | None) -> Completion:
    if scored is None:
        raise GeneratorError(
            "The generator's server returns no log-probabilities. Use a server and a model that do."
        )
    values = tuple(min(float(token["logprob"]), 0.0) for token in scored)
    return Completion(text.strip(), _pieces(text, scored), values)


def _pieces(text: str, scored: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The texts of tokens, without the white space around the answer. Several tokens may spell one character."""
    raw = [bytes(token["bytes"]) if token.get("bytes") else token["token"].encode() for token in scored]
    prefixes = [prefix.decode(errors="ignore") for prefix in accumulate(raw)]
    if not prefixes or not prefixes[-1].startswith(text):  # some servers also send the end token
        return ()
    first = len(text) - len(text.lstrip())
    last = max(len(text.rstrip()), first)
    ends = [min(max(len(prefix), first), last) for prefix in prefixes]
    return tuple(text[start:end] for start, end in zip([first, *ends], ends, strict=False))
