"""Files of questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragweave.types import Example


def written(path: Path, *lines: Any) -> Path:
    """A file of lines; what is not text is written as JSON."""
    path.write_text(
        "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8"
    )
    return path


def parts(examples: Sequence[Example]) -> list[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
    """What most tests look at: id, question, answers, ids of gold passages."""
    return [(own.id, own.question, own.answers, own.gold_passages) for own in examples]
