"""What a model answered, question by question: the file that everything in a report is computed from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ragweave.errors import DataError


@dataclass(frozen=True, slots=True)
class RankedPassage:
    """A passage that was found.

    Attributes:
        id: The passage's id.
        document_id: Its document's id; gold ids may be of either.
        has_answer: Whether its text has one of the gold answers, as DPR looks for them.
    """

    id: str
    document_id: str
    has_answer: bool


@dataclass(frozen=True, slots=True)
class ReadPassage:
    """A passage that an answer was made from.

    Attributes:
        id: The passage's id.
        document_id: Its document's id.
        title: Its title.
        text: Its text.
        source: What it was read from.
        doc_score: The logit of p(z|x).
        posterior: p(z | x, y).
    """

    id: str
    document_id: str
    title: str
    text: str
    source: str
    doc_score: float
    posterior: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """One question, what is right, and what came of it.

    Attributes:
        id: The question's id.
        question: The question.
        golds: Answers that are right.
        gold_passages: Ids of passages or documents that hold the answer; empty where nobody knows.
        answer: The answer; ``None`` where passages were retrieved and nothing was answered.
        score: log p(y|x), natural logarithm.
        passages: What it was made from, by falling posterior.
        retrieved: What was found, best first, to the depth that retrieval is measured at.
    """

    id: str
    question: str
    golds: tuple[str, ...]
    gold_passages: tuple[str, ...]
    answer: str | None
    score: float | None
    passages: tuple[ReadPassage, ...]
    retrieved: tuple[RankedPassage, ...]

    def to_json(self) -> str:
        """The prediction in one line."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Prediction:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError: It is something else.
        """
        score = content["score"]
        return cls(
            id=str(content["id"]),
            question=str(content["question"]),
            golds=tuple(map(str, content["golds"])),
            gold_passages=tuple(map(str, content["gold_passages"])),
            answer=None if content["answer"] is None else str(content["answer"]),
            score=None if score is None else float(score),
            passages=tuple(ReadPassage(**passage) for passage in content["passages"]),
            retrieved=tuple(RankedPassage(**passage) for passage in content["retrieved"]),
        )


def read_predictions(path: Path, *, mend: bool = False) -> list[Prediction]:
    """Read a file of predictions.

    Args:
        path: The file.
        mend: Leave out a last line that was cut off when the program was killed, and cut it off the file.

    Raises:
        DataError: There is no such file, or a line is no prediction, or two have one id.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"The predictions {path} cannot be read ({error.strerror}): run 'ragweave eval' first."
        ) from error
    lines = content.split(b"\n")
    if mend and lines[-1]:
        with path.open("r+b") as file:
            file.truncate(len(content) - len(lines[-1]))
        lines.pop()
    found: dict[str, Prediction] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prediction = Prediction.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"Line {number} of {path} is no prediction ({error!r}): delete the folder and run again."
            ) from error
        if prediction.id in found:
            raise DataError(
                f"Line {number} of {path} has the id '{prediction.id}' once more: delete one of the lines."
            )
        found[prediction.id] = prediction
    return list(found.values())


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a file of predictions in place of another, whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text("".join(f"{prediction.to_json()}\n" for prediction in predictions), encoding="utf-8")
    temporary.replace(path)
