"""The answers of a run: a file of JSON lines that grows one by one, so that a run can resume."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

Version = Literal["original", "exchanged"]
Decoding = Literal["extractive", "free"]

VERSIONS: tuple[Version, ...] = get_args(Version)
DECODINGS: tuple[Decoding, ...] = get_args(Decoding)

Key = tuple[Version, Decoding, str]
"""Version, decoding and id of a question."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, what was answered, and what is right by each version of the documents.

    Attributes:
        version: The version of the knowledge base that was in force.
        decoding: Whether answers were held to the words of the passages.
        id: Country and kind of the question, such as ``france/capital``.
        question: The question.
        answer: The answer.
        gold: Right answers by version; the first is the name alone.
        retrieved: Whether the right name by the version in force stands in one of the passages.
        passages: Ids of the passages, the one that counted most first.
    """

    version: Version
    decoding: Decoding
    id: str
    question: str
    answer: str
    gold: dict[Version, list[str]]
    retrieved: bool
    passages: list[str]

    @property
    def country(self) -> str:
        """The country, as it stands in the id."""
        return self.id.partition("/")[0]

    @property
    def kind(self) -> str:
        """The kind of the question."""
        return self.id.partition("/")[2]


class AnswerFile:
    """Answers that are kept as they come.

    Args:
        path: The file; it need not be there. A last line that was cut off is dropped.

    Attributes:
        asked: All that is in the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.asked: list[Asked] = []
        self._keys: set[Key] = set()
        if not path.exists():
            return
        whole, _, cut_off = path.read_text(encoding="utf-8").rpartition("\n")
        for line in filter(None, whole.split("\n")):
            self._remember(Asked(**json.loads(line)))
        if cut_off:
            self._rewrite()

    def __contains__(self, key: Key) -> bool:
        """Tells whether a question was asked."""
        return key in self._keys

    def add(self, asked: Asked) -> None:
        """Keeps an answer, on the disk too."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(asked))
        self._remember(asked)

    def _remember(self, asked: Asked) -> None:
        self.asked.append(asked)
        self._keys.add((asked.version, asked.decoding, asked.id))

    def _rewrite(self) -> None:
        partial = self._path.with_name(self._path.name + ".partial")
        partial.write_text("".join(map(_line, self.asked)), encoding="utf-8")
        partial.replace(self._path)


def _line(asked: Asked) -> str:
    return json.dumps(asdict(asked), ensure_ascii=False) + "\n"
