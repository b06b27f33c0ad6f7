"""What a run was begun with, so that one with other data is not taken for its continuation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from ragweave.errors import TrainingError
from ragweave.knowledge.store import replace_text

FILE = "training-data.json"


def write_record(folder: Path, rows: Iterable[Sequence[str]]) -> None:
    """Note the data of a run that begins.

    Args:
        folder: The run's folder.
        rows: The texts that are learned from, those of a question each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / FILE, json.dumps(_record(rows)) + "\n")


def check_record(folder: Path, rows: Iterable[Sequence[str]]) -> None:
    """Check that a run goes on with the data that it was begun with.

    Args:
        folder: The run's folder.
        rows: The texts that are learned from, those of a question each.

    Raises:
        TrainingError: They are others, or the folder has no run to go on with.
    """
    try:
        begun = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"There is no run in {folder} to go on with: leave --resume (resume_from_checkpoint) out to begin "
            "one in an empty folder."
        ) from error
    own = _record(rows)
    if begun != own:
        raise TrainingError(
            f"The training data has changed since the run in {folder} was begun ({begun.get('questions')} questions "
            f"then, {own['questions']} now): bring back the file as it was (of a retriever, the knowledge base and "
            "--negatives too), or begin anew in another --output (output_dir)."
        )


def _record(rows: Iterable[Sequence[str]]) -> dict[str, str | int]:
    digest, count = hashlib.sha256(), 0
    for row in rows:
        digest.update(json.dumps([*row]).encode())
        count += 1
    return {"questions": count, "sha256": digest.hexdigest()}
