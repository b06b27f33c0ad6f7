"""The folder of an evaluation: its description, one prediction per question, the metrics and the report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ragweave.errors import DataError
from ragweave.knowledge.manifest import decoded
from ragweave.knowledge.store import replace_text

Mode = Literal["e2e", "retrieval", "closed-book"]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How every question is evaluated."""

    # ``"e2e"``: retrieve and answer. ``"retrieval"``: only retrieve. ``"closed-book"``: answer without passages.
    mode: Mode = "e2e"
    n_docs: int = 5  # K, passages per answer
    depth: int = 20  # how many passages to retrieve for retrieval metrics; at least K
    num_beams: int = 1  # R
    max_new_tokens: int = 32  # maximum length of an answer, in tokens
    batch_size: int = 8  # questions answered together
    # Whether answers are spans of the passages; the pipeline's default if ``None``.
    extractive: bool | None = None
    # RAG-Sequence's, ``"thorough"`` or ``"fast"``; the model's default if ``None``.
    decoding: Literal["thorough", "fast"] | None = None
    gold: bool = False  # answer from the gold passages instead of the retrieved ones
    patterns: bool = False  # whether gold answers are regular expressions
    metrics: tuple[str, ...] = ("exact_match", "f1")  # the answer metrics to compute
    # The lowest confidence at which an answer is given; the pipeline's default if ``None``.
    min_confidence: float | None = None

    @property
    def retrieval_depth(self) -> int:
        """The number of passages to retrieve for a question."""
        return max(self.n_docs, self.depth)


@dataclass(frozen=True, slots=True)
class RankedPassage:
    """A retrieved passage."""

    id: str
    document_id: str  # the id of its document; gold ids can be of either kind
    has_answer: bool  # whether its text contains a gold answer, by DPR's definition


@dataclass(frozen=True, slots=True)
class ReadPassage:
    """A passage in the context of an answer."""

    id: str
    document_id: str  # the id of its document
    title: str
    text: str
    source: str  # the file it came from
    doc_score: float  # the logit of p(z|x)
    posterior: float  # p(z | x, y)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One question, its gold answers and passages, and the result."""

    id: str
    question: str
    golds: tuple[str, ...]
    gold_passages: tuple[str, ...]  # ids of gold passages or gold documents; empty if unknown
    answer: str | None  # the answer; ``None`` if the run only retrieves
    score: float | None  # log p(y|x), natural logarithm
    passages: tuple[ReadPassage, ...]  # the passages in the context, by descending posterior
    retrieved: tuple[RankedPassage, ...]  # the retrieved passages, best first
    confidence: float | None = None  # how likely the answer is to be right, in [0, 1]
    # Whether the confidence reached the threshold; ``answer`` holds the best guess if it did not.
    answered: bool = True
    unanswerable: bool = False  # whether the data says that the documents do not answer the question
    # The inputs of the confidence; see `ragweave.provenance.confidence.signals`.
    signals: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """The prediction as one line."""
        return json.dumps(asdict(self), ensure_ascii=False)


class RunFolder:
    """The files in the folder of an evaluation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.description = root / "run.json"  # model, knowledge base, data and settings
        self.predictions = root / "predictions.jsonl"  # one prediction per question
        self.metrics = root / "metrics.json"  # means and intervals of all metrics
        self.report = root / "report.html"
        self.elapsed = root / "seconds.json"  # the seconds that an unfinished run has taken

    def begin(self, description: Mapping[str, Any], questions: Mapping[str, str]) -> dict[str, Prediction]:
        """Create the folder, or resume the same run in it.

        The description is everything that defines the run: settings, model, knowledge base, data. The questions,
        and the returned predictions of an interrupted run, are keyed by question id. Raises `DataError` if the folder
        contains other files, a different run, or predictions for other questions.
        """
        if not self.description.exists():
            if self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
                raise DataError(f"{self.root} contains other files, but no run: choose another --output.")
            self.root.mkdir(parents=True, exist_ok=True)
            write_json(self.description, description)
            return {}
        advice = "choose another --output, or add --overwrite to start again."
        before, now = flatten(read_json(self.description)), flatten(json.loads(json.dumps(dict(description))))
        if changed := sorted(name for name in {*before, *now} if before.get(name) != now.get(name)):
            raise DataError(f"{self.root} contains a run with different {', '.join(changed)}: {advice}")
        predictions = read_predictions(self.predictions, repair=True) if self.predictions.exists() else []
        for number, prediction in enumerate(predictions, start=1):
            if questions.get(prediction.id) != prediction.question:
                raise DataError(
                    f"Prediction {number} of {self.predictions} answers the question {prediction.question[:60]!r} "
                    f"(id '{prediction.id}'), which is not in the data: {advice}"
                )
        return {prediction.id: prediction for prediction in predictions}

    def settings(self) -> RunSettings:
        """The settings of a run. Raises `DataError` if the folder does not contain a run."""
        content = read_json(self.description)
        try:
            settings = dict(content["settings"])
            return RunSettings(**{**settings, "metrics": tuple(settings["metrics"])})
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.description} does not describe a run ({error!r}): delete the folder and run again."
            ) from error


def read_predictions(path: Path, *, repair: bool = False) -> list[Prediction]:
    """Read a file of predictions; ``repair`` cuts off an incomplete last line, which a killed process leaves behind.

    Raises `DataError` if the file is missing, a line is not a prediction, or an id occurs twice.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"The predictions {path} cannot be read ({error.strerror}): run 'ragweave eval' first."
        ) from error
    lines = content.split(b"\n")
    if repair and lines[-1]:
        with path.open("r+b") as file:
            file.truncate(len(content) - len(lines[-1]))
        lines.pop()
    predictions: dict[str, Prediction] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prediction = decoded(Prediction, json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"Line {number} of {path} is not a prediction ({error!r}): delete the folder and run again."
            ) from error
        if prediction.id in predictions:
            raise DataError(
                f"Line {number} of {path} repeats the id '{prediction.id}': delete one of the lines."
            )
        predictions[prediction.id] = prediction
    return list(predictions.values())


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a file of predictions atomically."""
    replace_text(path, "".join(f"{prediction.to_json()}\n" for prediction in predictions))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically."""
    replace_text(path, json.dumps(dict(content), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a run. Raises `DataError` if the file is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): give the folder of a run that 'ragweave eval' has finished."
        ) from error
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): delete the folder and run again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged (not a JSON object): delete the folder and run again.")
    return content


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested objects by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
