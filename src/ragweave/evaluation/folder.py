"""The folder of an evaluation: what was asked of it, and how far it has come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ragweave.errors import DataError
from ragweave.evaluation.predictions import Prediction, read_predictions

Mode = Literal["e2e", "retrieval", "closed-book"]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What is done with every question.

    Attributes:
        mode: ``"e2e"``: retrieve and answer. ``"retrieval"``: only retrieve. ``"closed-book"``: answer without
            passages.
        n_docs: K, passages per answer.
        depth: How many passages are retrieved to measure retrieval; K where that is more.
        num_beams: R.
        max_new_tokens: The longest answer, in tokens.
        batch_size: Questions answered together.
        extractive: Whether answers are runs of words of the passages; the pipeline's way where ``None``.
        decoding: RAG-Sequence's, ``"thorough"`` or ``"fast"``; the model's where ``None``.
        gold: Answer from the gold passages in place of those that are found.
        patterns: Whether gold answers are regular expressions.
        metrics: Which metrics of answers are wanted.
    """

    mode: Mode = "e2e"
    n_docs: int = 5
    depth: int = 20
    num_beams: int = 1
    max_new_tokens: int = 32
    batch_size: int = 8
    extractive: bool | None = None
    decoding: Literal["thorough", "fast"] | None = None
    gold: bool = False
    patterns: bool = False
    metrics: tuple[str, ...] = ("exact_match", "f1")

    @property
    def found(self) -> int:
        """How many passages are retrieved for a question."""
        return max(self.n_docs, self.depth)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Every path of an evaluation, and what is in the files.

    Attributes:
        root: Its folder.
    """

    root: Path

    @property
    def description(self) -> Path:
        """What was evaluated, and how."""
        return self.root / "run.json"

    @property
    def predictions(self) -> Path:
        """What came of every question."""
        return self.root / "predictions.jsonl"

    @property
    def metrics(self) -> Path:
        """The figures."""
        return self.root / "metrics.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def clock(self) -> Path:
        """The seconds that an unfinished run has taken."""
        return self.root / "seconds.json"

    def begin(self, description: Mapping[str, Any], questions: Mapping[str, str]) -> dict[str, Prediction]:
        """Make the folder, or find out how far the same run has come in it.

        Args:
            description: What makes the run what it is: settings, model, knowledge base, data.
            questions: The questions by their ids.

        Returns:
            The predictions that are there, by the ids of their questions.

        Raises:
            DataError: The folder holds something else, or another run, or predictions for other questions.
        """
        if not self.description.exists():
            if self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
                raise DataError(f"{self.root} holds something else than a run: choose another --output.")
            self.root.mkdir(parents=True, exist_ok=True)
            write_json(self.description, description)
            return {}
        elsewhere = "choose another --output, or add --overwrite to begin anew."
        before = read_json(self.description)
        if changed := sorted(_differences(before, json.loads(json.dumps(dict(description))))):
            raise DataError(f"{self.root} holds a run with another {', '.join(changed)}: {elsewhere}")
        found = read_predictions(self.predictions, mend=True) if self.predictions.exists() else []
        for number, prediction in enumerate(found, start=1):
            if questions.get(prediction.id) != prediction.question:
                raise DataError(
                    f"Prediction {number} of {self.predictions} answers the question {prediction.question[:60]!r} "
                    f"(id '{prediction.id}'), which the data does not have: {elsewhere}"
                )
        return {prediction.id: prediction for prediction in found}

    def settings(self) -> RunSettings:
        """The settings of a run.

        Raises:
            DataError: The folder holds no run.
        """
        content = read_json(self.description)
        try:
            own = dict(content["settings"])
            return RunSettings(**{**own, "metrics": tuple(own["metrics"])})
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.description} describes no run ({error!r}): delete the folder and run again."
            ) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file in place of another, whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(dict(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read one of the files of a run.

    Raises:
        DataError: It is missing or damaged.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): give the folder of a run that 'ragweave eval' has finished."
        ) from error
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): delete the folder and run again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged (no JSON object): delete the folder and run again.")
    return content


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> set[str]:
    """The names of what is not the same in two descriptions."""
    found: set[str] = set()
    for name in {*before, *now}:
        one, other = before.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found |= _differences(one, other, f"{prefix}{name}.")
        elif one != other:
            found.add(f"{prefix}{name}")
    return found
