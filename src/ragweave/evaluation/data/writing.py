"""Writing questions and what is right as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ragweave.evaluation.data.example import Example


def write_examples(path: Path | str, examples: Iterable[Example]) -> None:
    """Write examples as JSON lines that `read_examples` reads, whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for example in examples:
                fields = {
                    "id": example.id,
                    "question": example.question,
                    "answers": list(example.answers),
                    "passages": list(example.gold_passages),
                }
                file.write(json.dumps(fields, ensure_ascii=False) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
